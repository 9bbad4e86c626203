"""Means, paired differences and their uncertainty, from one joint bootstrap of the independent units.

Every column (a method's scores on a metric) is measured on the same items, so items are resampled, not scores: one set
of resamples serves every mean, difference and ratio. All comparisons stay paired, and cost one matrix product.

Items of one prompt (its seeds) are alike: the unit is the prompt. Whole units are resampled (Davison & Hinkley 1997,
section 3.8), standard errors are cluster-robust (Liang & Zeger 1986), and tests are over the units' means. With one
item per unit these are the usual statistics of single items.

Shapes: N items, U units, K columns, R resamples.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm, permutation_test, rankdata, wilcoxon

RESAMPLES = 10_000
CONFIDENCE = 0.95
POWER = 0.8
FEW = 13  # changes whose 2 ** 13 signs SciPy's `wilcoxon` tries all if some changes tie
COUNTS_AT_ONCE = 2_000_000  # bounds the memory of the resample counts to some tens of MB


@dataclass(frozen=True)
class Estimate:
    """A value measured on ``n`` items in ``units``, with its 95 % interval; the standard error is None for one unit."""

    n: int
    units: int
    mean: float
    standard_error: float | None
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """How b compares with a on the same ``n`` items in ``units``.

    Attributes:
        difference: mean of b - a, with ``standard_error`` (None for one unit) and 95 % interval ``low``, ``high``.
        wins: pairs that b wins; with ``ties`` and ``losses`` they add up to ``n``.
        win_rate: share of the pairs that b wins, a tie counted as half; ``win_low`` and ``win_high`` are Wilson's, for
            the effective number of independent pairs.
        units_better: units in which b is better on average; ``units_worse`` those in which a is.
        p_value: exact two-sided sign test of these two counts. On 0/1 scores of single items it is the exact McNemar
            test; unlike Wilcoxon's test it does not assume symmetric differences.
        p_wilcoxon: Wilcoxon's signed rank test over the units' mean differences.
        effect_size: Cohen's d_z, the mean difference over its standard deviation between units; None if that is 0 or
            unknown.
        pairs_needed: pairs, as many per unit as here, that find an effect of this size with 80 % power.
    """

    n: int
    units: int
    difference: float
    standard_error: float | None
    low: float
    high: float
    wins: int
    ties: int
    losses: int
    win_rate: float
    win_low: float
    win_high: float
    units_better: int
    units_worse: int
    p_value: float
    p_wilcoxon: float
    effect_size: float | None
    pairs_needed: int | None


class PairedSample:
    """Columns (N,) of finite scores of the same N >= 1 items, with 10,000 joint resamples of their units.

    Intervals are BCa (Efron 1987, "Better bootstrap confidence intervals"): the percentile interval is too symmetric
    for rates near 0 or 1 and for small tasks. SciPy's ``bootstrap`` draws new resamples for every statistic; here the
    acceleration has a closed form. Constant columns and a single unit give an interval of zero width.

    Args:
        units: N labels, the same for items that belong together; None: every item is a unit.
    """

    def __init__(
        self, columns: Mapping[Any, np.ndarray], units: Sequence[Hashable] | None = None, seed: int = 0
    ) -> None:
        self._columns = {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}
        values_NK = np.stack(list(self._columns.values()), axis=1)
        self.n = len(values_NK)
        labels = range(self.n) if units is None else units
        numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
        self._unit_N = np.array([numbers[label] for label in labels])
        self._sizes_U = np.bincount(self._unit_N).astype(np.float64)
        self.units = len(self._sizes_U)
        sums_UK = np.stack([self._unit_sums(values_N) for values_N in values_NK.T] + [self._sizes_U], axis=1)
        *sums, self._items_R = _resampled_sums(sums_UK, seed).T
        self._sums = dict(zip(self._columns, sums, strict=True))

    def mean_interval(self, column: Hashable) -> Estimate:
        """Mean of a column with its interval."""
        return self._estimate(self._columns[column], self._sums[column])

    def difference_interval(self, a: Hashable, b: Hashable) -> Estimate:
        """Mean of b - a with its interval, for quantities without better or worse."""
        return self._estimate(self._columns[b] - self._columns[a], self._sums[b] - self._sums[a])

    def paired_difference(self, a: Hashable, b: Hashable) -> Comparison:
        """How b compares with a; p-values are 1 if all units tie."""
        change_N = self._columns[b] - self._columns[a]
        mean = self.difference_interval(a, b)
        wins, losses = int((change_N > 0).sum()), int((change_N < 0).sum())
        win_rate = 0.5 + (wins - losses) / (2 * self.n)
        win_low, win_high = wilson_interval(win_rate, self._effective_size(np.sign(change_N)))
        change_U = self._unit_sums(change_N) / self._sizes_U
        better, worse = int((change_U > 0).sum()), int((change_U < 0).sum())
        effect = effect_size(mean, change_N)
        needed = pairs_needed(effect)
        return Comparison(
            n=self.n,
            units=self.units,
            difference=mean.mean,
            standard_error=mean.standard_error,
            low=mean.low,
            high=mean.high,
            wins=wins,
            ties=self.n - wins - losses,
            losses=losses,
            win_rate=win_rate,
            win_low=win_low,
            win_high=win_high,
            units_better=better,
            units_worse=worse,
            p_value=float(binomtest(better, better + worse).pvalue) if better + worse else 1.0,
            p_wilcoxon=signed_rank_test(change_U[change_U != 0]),
            effect_size=effect,
            pairs_needed=None if needed is None else ceil(needed * self.n / self.units),
        )

    def kept_share(self, standard: Hashable, search: Hashable, npnet: Hashable) -> Estimate | None:
        """Share of the search's gain over standard that NPNet keeps: a ratio of two paired mean differences.

        None if the search's gain is not clear (its interval is not above 0): a share of no gain means nothing. A
        resample in which the search gains nothing counts as an infinite share; None too if the interval reaches those.
        """
        if self.difference_interval(standard, search).low <= 0:
            return None
        gain_N = self._columns[search] - self._columns[standard]
        kept_N = self._columns[npnet] - self._columns[standard]
        gain_R = self._sums[search] - self._sums[standard]
        kept_R = self._sums[npnet] - self._sums[standard]
        share = float(kept_N.sum() / gain_N.sum())
        infinite_R = np.where(kept_R < 0, -np.inf, np.inf)
        share_R = np.divide(kept_R, gain_R, out=infinite_R, where=gain_R > 0)
        low, high = self._interval(share, share_R, kept_N - share * gain_N)
        return Estimate(self.n, self.units, share, None, low, high) if np.isfinite([low, high]).all() else None

    def _estimate(self, values_N: np.ndarray, sums_R: np.ndarray) -> Estimate:
        """Mean over the items, so that a unit with more of them counts more."""
        mean = float(values_N.mean())
        low, high = self._interval(mean, sums_R / self._items_R, values_N - mean)
        return Estimate(self.n, self.units, mean, self._standard_error(values_N), low, high)

    def _interval(self, estimate: float, resampled_R: np.ndarray, influence_N: np.ndarray) -> tuple[float, float]:
        # Rounding gives a constant column a spread of some 1e-17.
        rounding = np.spacing(abs(estimate) + 1) * np.sqrt((self._sizes_U**2).sum())
        return _bca(estimate, resampled_R, self._unit_sums(influence_N), rounding)

    def _standard_error(self, values_N: np.ndarray) -> float | None:
        """Cluster-robust standard error of the mean, None for one unit."""
        if self.units == 1:
            return None
        pull_U = self._unit_sums(values_N - values_N.mean())
        return float(np.sqrt((pull_U**2).sum() * self.units / (self.units - 1)) / self.n)

    def _effective_size(self, values_N: np.ndarray) -> float:
        """The number of independent items with the same standard error (Kish's design effect), at most N."""
        error = None if self.units == self.n else self._standard_error(values_N)
        if not error:  # independent already, or it is unknown how alike the items of a unit are
            return self.units
        return min(self.n, float(values_N.var(ddof=1)) / error**2)

    def _unit_sums(self, values_N: np.ndarray) -> np.ndarray:
        """Sums (U,) over the items of every unit."""
        return np.bincount(self._unit_N, weights=values_N)


def signed_rank_test(change_U: NDArray[np.float64]) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test of changes (U,), none of them 0; 1 without any.

    SciPy's own, but where it tries all signs of a few changes with ties: there it calls a function for each of up to
    8,192 combinations, which takes seconds, and this one for all of them.
    """
    if not len(change_U):
        return 1.0
    if len(change_U) > FEW or len(np.unique(np.abs(change_U))) == len(change_U):
        return float(wilcoxon(change_U).pvalue)

    def ranks_of_gains(change: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        return (rankdata(np.abs(change), axis=axis) * (change > 0)).sum(axis=axis)

    return float(permutation_test((change_U,), ranks_of_gains, permutation_type="samples", vectorized=True).pvalue)


def effect_size(change: Estimate, change_N: np.ndarray) -> float | None:
    """Cohen's d_z of a paired difference between units; None where they do not vary."""
    spread = (change.standard_error or 0.0) * np.sqrt(change.units)
    return None if spread <= np.spacing(np.abs(change_N).max() + 1) else float(change.mean / spread)


def wilson_interval(rate: float, n: float) -> tuple[float, float]:
    """Wilson's interval of a rate (1927). SciPy's takes whole counts only, and a tie is half a win.

    With ties the scores 0, 1/2, 1 vary less than the binomial that Wilson assumes, so the interval is too wide rather
    than too narrow.
    """
    z = norm.ppf((1 + CONFIDENCE) / 2)
    middle = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    return float(max(0.0, middle - half)), float(min(1.0, middle + half))


def pairs_needed(effect: float | None) -> int | None:
    """Pairs for a two-sided paired t-test at 5 % to find an effect d_z with 80 % power (Guenther 1981)."""
    if not effect:
        return None
    z = norm.ppf((1 + CONFIDENCE) / 2)
    return int(np.ceil(((z + norm.ppf(POWER)) / effect) ** 2 + z**2 / 2))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979): each bounds the chance of any false finding."""
    p_K = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p_K, kind="stable")
    corrected = np.maximum.accumulate(p_K[order] * np.arange(len(p_K), 0, -1)).clip(max=1)
    return corrected[np.argsort(order, kind="stable")].tolist()


def _resampled_sums(sums_UK: np.ndarray, seed: int) -> np.ndarray:
    """Sums of the columns over each resample of the rows, (RESAMPLES, K)."""
    n = len(sums_UK)
    generator = np.random.default_rng(seed)
    rows = max(1, COUNTS_AT_ONCE // n)
    sums = []
    for start in range(0, RESAMPLES, rows):
        size = min(rows, RESAMPLES - start)
        drawn = generator.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        counts_RU = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        sums.append(counts_RU.astype(np.float64) @ sums_UK)
    return np.concatenate(sums)


def _bca(estimate: float, resampled_R: np.ndarray, influence_U: np.ndarray, rounding: float) -> tuple[float, float]:
    """BCa interval of an estimate; ``influence_U`` is each unit's pull on it, up to a common factor."""
    square = (influence_U**2).sum()
    if square <= rounding**2:
        return estimate, estimate
    acceleration = (influence_U**3).sum() / (6 * square**1.5)
    below = ((resampled_R < estimate).mean() + (resampled_R <= estimate).mean()) / 2
    bias = norm.ppf(below)
    tails = bias + norm.ppf([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    levels = norm.cdf(bias + tails / (1 - acceleration * tails))
    # Not interpolated: a share may be infinite in some resamples.
    low, high = np.quantile(resampled_R, levels, method="nearest")
    return float(low), float(high)
