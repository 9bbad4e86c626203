"""Means, paired differences and their uncertainty, from one joint bootstrap of the items.

Every column (a method's scores on a metric) is measured on the same items, so items are resampled, not
scores: one set of resamples serves every mean, difference and ratio. That keeps all comparisons paired, and
the cost is one product of resample counts with the columns, whatever the number of comparisons.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, norm, wilcoxon

RESAMPLES = 10_000
CONFIDENCE = 0.95
POWER = 0.8
COUNTS_AT_ONCE = 2_000_000  # bounds the memory of the resample counts to some tens of MB


@dataclass(frozen=True)
class Estimate:
    """A value measured on ``n`` items, with its 95 % interval; the standard error is None for one item."""

    mean: float
    standard_error: float | None
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Comparison:
    """How b compares with a on the same ``n`` items.

    Attributes:
        difference: mean of b - a, with ``standard_error`` (None for one pair) and 95 % interval ``low``, ``high``.
        win_rate: share of the pairs that b wins, a tie counted as half; ``win_low`` and ``win_high`` are Wilson's.
        p_value: exact two-sided sign test over the pairs that differ. It tests the win rate; on 0/1 scores it is the
            exact McNemar test, and unlike Wilcoxon's test it does not assume that the differences are symmetric.
        p_wilcoxon: Wilcoxon's signed rank test over the pairs that differ.
        effect_size: Cohen's d_z, the mean difference over its standard deviation; None if that is 0 or unknown.
        pairs_needed: pairs at which an effect of this size is found with 80 % power; None without an effect.
    """

    n: int
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
    p_value: float
    p_wilcoxon: float
    effect_size: float | None
    pairs_needed: int | None


class PairedSample:
    """Columns (N,) of finite scores of the same N >= 1 items, with 10,000 joint resamples of the items.

    Intervals are BCa (Efron 1987, "Better bootstrap confidence intervals"): the plain percentile interval is
    too symmetric for rates near 0 or 1 and for small tasks, and the correction is nearly free here, since the
    acceleration of a mean has a closed form. Constant columns and N = 1 give an interval of zero width.
    """

    def __init__(self, columns: Mapping[Hashable, np.ndarray], seed: int = 0) -> None:
        self._columns = {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}
        values_NK = np.stack(list(self._columns.values()), axis=1)
        self.n = len(values_NK)
        self._sums = dict(zip(self._columns, _resampled_sums(values_NK, seed).T, strict=True))

    def mean_interval(self, column: Hashable) -> Estimate:
        """Mean of a column with its bootstrap interval."""
        values_N = self._columns[column]
        low, high = self._interval_of_mean(values_N, self._sums[column])
        return Estimate(float(values_N.mean()), standard_error(values_N), low, high, self.n)

    def difference_interval(self, a: Hashable, b: Hashable) -> Estimate:
        """Mean of b - a with its bootstrap interval, for what has no better or worse."""
        change_N = self._columns[b] - self._columns[a]
        low, high = self._interval_of_mean(change_N, self._sums[b] - self._sums[a])
        return Estimate(float(change_N.mean()), standard_error(change_N), low, high, self.n)

    def paired_difference(self, a: Hashable, b: Hashable) -> Comparison:
        """Mean of b - a with its bootstrap interval, wins of b, and tests; p-values are 1 when all pairs tie."""
        change_N = self._columns[b] - self._columns[a]
        low, high = self._interval_of_mean(change_N, self._sums[b] - self._sums[a])
        wins, losses = int((change_N > 0).sum()), int((change_N < 0).sum())
        win_rate = 0.5 + (wins - losses) / (2 * self.n)
        win_low, win_high = wilson_interval(win_rate, self.n)
        effect = effect_size(change_N)
        return Comparison(
            n=self.n,
            difference=float(change_N.mean()),
            standard_error=standard_error(change_N),
            low=low,
            high=high,
            wins=wins,
            ties=self.n - wins - losses,
            losses=losses,
            win_rate=win_rate,
            win_low=win_low,
            win_high=win_high,
            p_value=float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0,
            p_wilcoxon=float(wilcoxon(change_N[change_N != 0]).pvalue) if wins + losses else 1.0,
            effect_size=effect,
            pairs_needed=pairs_needed(effect),
        )

    def kept_share(self, standard: Hashable, search: Hashable, npnet: Hashable) -> Estimate | None:
        """Share of the search's gain over standard that NPNet keeps: a ratio of two paired mean differences.

        None when the search's gain is not clear (its interval is not above 0), since a share of no gain means
        nothing. A resample in which the search gains nothing counts as an infinite share; where those reach
        the end of the interval the answer is None too.
        """
        if self.paired_difference(standard, search).low <= 0:
            return None
        gain_N = self._columns[search] - self._columns[standard]
        kept_N = self._columns[npnet] - self._columns[standard]
        gain_R = self._sums[search] - self._sums[standard]
        kept_R = self._sums[npnet] - self._sums[standard]
        share = float(kept_N.sum() / gain_N.sum())
        infinite_R = np.where(kept_R < 0, -np.inf, np.inf)
        share_R = np.divide(kept_R, gain_R, out=infinite_R, where=gain_R > 0)
        low, high = _bca(share, share_R, influence_N=kept_N - share * gain_N)
        return Estimate(share, None, low, high, self.n) if np.isfinite([low, high]).all() else None

    def _interval_of_mean(self, values_N: np.ndarray, sums_R: np.ndarray) -> tuple[float, float]:
        mean = values_N.mean()
        return _bca(mean, sums_R / self.n, influence_N=values_N - mean)


def standard_error(values_N: np.ndarray) -> float | None:
    """Standard error of the mean, None for a single value."""
    return float(values_N.std(ddof=1) / np.sqrt(len(values_N))) if len(values_N) > 1 else None


def effect_size(change_N: np.ndarray) -> float | None:
    """Cohen's d_z of paired differences; None where they do not vary."""
    spread = change_N.std(ddof=1) if len(change_N) > 1 else 0.0
    return None if spread <= np.spacing(np.abs(change_N).max() + 1) else float(change_N.mean() / spread)


def wilson_interval(rate: float, n: int) -> tuple[float, float]:
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
    """p-values corrected for being a family (Holm 1979): each bounds the chance of any false finding."""
    p_K = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p_K, kind="stable")
    corrected = np.maximum.accumulate(p_K[order] * np.arange(len(p_K), 0, -1)).clip(max=1)
    return corrected[np.argsort(order, kind="stable")].tolist()


def _resampled_sums(values_NK: np.ndarray, seed: int) -> np.ndarray:
    """Sums of the columns over each resample of the rows, (RESAMPLES, K)."""
    n = len(values_NK)
    generator = np.random.default_rng(seed)
    rows = max(1, COUNTS_AT_ONCE // n)
    sums = []
    for start in range(0, RESAMPLES, rows):
        size = min(rows, RESAMPLES - start)
        drawn = generator.integers(n, size=(size, n))
        drawn += n * np.arange(size)[:, None]
        counts_RN = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        sums.append(counts_RN.astype(np.float64) @ values_NK)
    return np.concatenate(sums)


def _bca(estimate: float, resampled_R: np.ndarray, influence_N: np.ndarray) -> tuple[float, float]:
    """BCa interval of an estimate; ``influence_N`` is each item's pull on it, up to a common factor."""
    square = (influence_N**2).sum()
    # Rounding leaves a constant column with a spread of some 1e-17 instead of none.
    if square <= len(influence_N) * np.spacing(abs(estimate) + 1) ** 2:
        return float(estimate), float(estimate)
    acceleration = (influence_N**3).sum() / (6 * square**1.5)
    below = ((resampled_R < estimate).mean() + (resampled_R <= estimate).mean()) / 2
    bias = norm.ppf(below)
    tails = bias + norm.ppf([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    levels = norm.cdf(bias + tails / (1 - acceleration * tails))
    # Not interpolated: a share may be infinite in some resamples.
    low, high = np.quantile(resampled_R, levels, method="nearest")
    return float(low), float(high)
