"""The statistics against SciPy, closed forms and simulation."""

import warnings
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap, sem, ttest_1samp, ttest_rel, wilcoxon

from golden_noise.evaluation.statistics import PairedSample, holm, pairs_needed, signed_rank_test, wilson_interval

graded_pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30)


@pytest.fixture(autouse=True)
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_the_interval_agrees_with_scipys_bca_on_skewed_data():
    values = np.random.default_rng(1).exponential(size=60)
    ours = PairedSample({"x": values}).mean_interval("x")
    scipys = bootstrap((values,), np.mean, n_resamples=20_000, rng=2, method="BCa").confidence_interval
    assert ours.mean == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx((scipys.low, scipys.high), abs=0.015)


def test_the_interval_of_a_large_sample_is_that_of_the_normal_distribution():
    values = (np.arange(4_000) % 5 < 3).astype(float)
    ours = PairedSample({"x": values}).mean_interval("x")
    half = 1.96 * np.sqrt(0.6 * 0.4 / 4_000)
    assert (ours.low, ours.high) == pytest.approx((0.6 - half, 0.6 + half), abs=1e-3)


@pytest.mark.parametrize(
    ("draw", "mean"),
    [
        (lambda rng, shape: rng.exponential(size=shape), 1.0),
        (lambda rng, shape: (rng.random(shape) < 0.15).astype(float), 0.15),
    ],
    ids=["skewed", "rate"],
)
def test_intervals_cover_the_true_mean_as_often_as_they_claim(draw, mean):
    trials = draw(np.random.default_rng(3), (400, 80))
    sample = PairedSample(dict(enumerate(trials)))
    intervals = [sample.mean_interval(k) for k in range(400)]
    covered = np.mean([found.low <= mean <= found.high for found in intervals])
    assert 0.91 <= covered <= 0.98


def test_paired_intervals_cover_the_true_difference():
    rng = np.random.default_rng(4)
    difficulty = rng.normal(size=(300, 1, 80))
    trials = difficulty + 0.5 * rng.normal(size=(300, 2, 80)) + np.array([[0.0], [0.2]])
    sample = PairedSample({(k, side): trials[k, side] for k in range(300) for side in (0, 1)})
    found = [sample.paired_difference((k, 0), (k, 1)) for k in range(300)]
    assert 0.91 <= np.mean([one.low <= 0.2 <= one.high for one in found]) <= 0.98


def test_pairing_removes_what_both_share():
    a = np.random.default_rng(5).normal(20, 3, size=200)
    sample = PairedSample({"a": a, "b": a + 0.25})
    found = sample.paired_difference("a", "b")
    assert (found.difference, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))
    mean = sample.mean_interval("a")
    assert mean.high - mean.low > 0.5


@pytest.mark.parametrize("values", [[0.1] * 50, [1.0], [0.3], [-7.25e6] * 9], ids=str)
def test_data_without_spread_has_an_interval_without_width(values):
    found = PairedSample({"x": np.array(values)}).mean_interval("x")
    assert found.low == found.high == pytest.approx(values[0])
    assert found.n == len(values)


def test_all_ties_show_no_difference():
    scores = np.random.default_rng(6).random(30)
    found = PairedSample({"a": scores, "b": scores.copy()}).paired_difference("a", "b")
    assert (found.difference, found.low, found.high) == (0, 0, 0)
    assert (found.wins, found.ties, found.losses) == (0, 30, 0)
    assert (found.win_rate, found.p_value) == (0.5, 1.0)


def test_wins_and_p_value_of_strict_scores_are_those_of_mcnemars_exact_test():
    a = np.array([0.0] * 8 + [1.0] * 2 + [0.0, 1.0] * 10)
    b = np.array([1.0] * 8 + [0.0] * 2 + [0.0, 1.0] * 10)
    found = PairedSample({"a": a, "b": b}).paired_difference("a", "b")
    assert (found.n, found.wins, found.ties, found.losses) == (30, 8, 20, 2)
    assert found.win_rate == pytest.approx((8 + 20 / 2) / 30)
    assert found.p_value == pytest.approx(2 * sum(comb(10, k) for k in range(3)) / 2**10)


@settings(max_examples=25, deadline=None)
@given(graded_pairs)
def test_swapping_the_methods_mirrors_the_comparison(pairs):
    a, b = np.array(pairs, dtype=float).T
    sample = PairedSample({"a": a, "b": b})
    there, back = sample.paired_difference("a", "b"), sample.paired_difference("b", "a")
    assert there.difference == -back.difference
    assert there.p_value == pytest.approx(back.p_value)
    assert there.win_rate + back.win_rate == pytest.approx(1)
    assert (there.wins, there.losses) == (back.losses, back.wins)
    assert there.low <= there.difference <= there.high
    step = 1 / len(pairs)  # the two tails may fall on neighbouring values of a discrete distribution
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=2 * step)


@settings(max_examples=25, deadline=None)
@given(graded_pairs)
def test_an_interval_stays_within_the_data(pairs):
    values = np.array(pairs, dtype=float)[:, 0]
    found = PairedSample({"x": values}).mean_interval("x")
    assert values.min() <= found.low <= found.mean <= found.high <= values.max()


def test_the_kept_share_of_a_constant_fraction_is_that_fraction():
    rng = np.random.default_rng(7)
    standard, gain = rng.random(100), rng.random(100)
    sample = PairedSample({"standard": standard, "search": standard + gain, "npnet": standard + 0.4 * gain})
    found = sample.kept_share("standard", "search", "npnet")
    assert (found.mean, found.low, found.high) == pytest.approx((0.4, 0.4, 0.4))


def test_the_kept_shares_interval_agrees_with_scipys_bca():
    rng = np.random.default_rng(8)
    standard = rng.normal(size=200)
    search, npnet = standard + rng.normal(0.5, 1, size=200), standard + rng.normal(0.3, 1, size=200)
    found = PairedSample({"s": standard, "t": search, "n": npnet}).kept_share("s", "t", "n")

    def share(kept, gain, axis=-1):
        return kept.mean(axis) / gain.mean(axis)

    theirs = bootstrap((npnet - standard, search - standard), share, paired=True, rng=9, method="BCa")
    assert found.mean == pytest.approx(share(npnet - standard, search - standard))
    interval = theirs.confidence_interval
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.05)  # both are Monte Carlo


@pytest.mark.parametrize("gain", [0.0, -0.5], ids=["none", "a loss"])
def test_there_is_no_share_of_a_gain_that_is_not_clear(gain):
    noise = np.random.default_rng(10).normal(size=100)
    sample = PairedSample({"standard": np.zeros(100), "search": gain + noise - noise.mean(), "npnet": noise + 1})
    assert sample.kept_share("standard", "search", "npnet") is None


def test_a_barely_clear_gain_gives_a_finite_share_or_none():
    noise = np.random.default_rng(11).normal(size=50)
    noise = (noise - noise.mean()) / noise.std()
    npnet = np.roll(noise, 7)
    answers = []
    for gain in np.linspace(0.2, 0.5, 13):
        sample = PairedSample({"standard": np.zeros(50), "search": gain + noise, "npnet": 0.1 + npnet})
        answers.append(sample.kept_share("standard", "search", "npnet"))
    assert answers[0] is None and answers[-1] is not None
    assert all(np.isfinite([one.low, one.high]).all() for one in answers if one)


def test_the_same_scores_give_the_same_intervals_in_any_company():
    a, b = np.random.default_rng(12).random((2, 70))
    alone = PairedSample({"a": a}).mean_interval("a")
    together = PairedSample({"b": b, "a": a}).mean_interval("a")
    assert (alone.low, alone.high) == pytest.approx((together.low, together.high), abs=1e-12)
    assert PairedSample({"a": a}, seed=1).mean_interval("a") != alone


def compare(a, b):
    return PairedSample({"a": np.asarray(a, float), "b": np.asarray(b, float)}).paired_difference("a", "b")


def test_tests_and_errors_are_scipys():
    a, b = np.random.default_rng(13).normal([[0.0], [0.3]], size=(2, 40))
    found = compare(a, b)
    assert found.standard_error == pytest.approx(sem(b - a))
    assert found.p_wilcoxon == pytest.approx(wilcoxon(b - a).pvalue)
    assert found.effect_size == pytest.approx(ttest_rel(b, a).statistic / np.sqrt(40))
    assert PairedSample({"a": a}).mean_interval("a").standard_error == pytest.approx(sem(a))


def test_wilcoxons_test_drops_ties():
    a, b = np.random.default_rng(14).integers(0, 4, size=(2, 60)).astype(float)
    assert compare(a, b).p_wilcoxon == pytest.approx(wilcoxon(b - a, zero_method="wilcox").pvalue)


@pytest.mark.parametrize(("wins", "n"), [(0, 7), (7, 7), (3, 10), (61, 100)])
def test_without_ties_the_win_rate_has_scipys_wilson_interval(wins, n):
    expected = binomtest(wins, n).proportion_ci(method="wilson")
    assert wilson_interval(wins / n, n) == pytest.approx((expected.low, expected.high))
    found = compare(np.zeros(n), [1.0] * wins + [-1.0] * (n - wins))
    assert (found.win_low, found.win_high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("tie", [0.0, 0.6])
def test_wilsons_interval_covers_the_true_win_rate_with_and_without_ties(tie):
    rng = np.random.default_rng(15)
    chances = [(1 - tie) * 0.3, tie, (1 - tie) * 0.7]
    truth = chances[2] + tie / 2
    trials = rng.choice([0.0, 0.5, 1.0], p=chances, size=(2_000, 50))
    bounds = [wilson_interval(rate, 50) for rate in trials.mean(axis=1)]
    covered = np.mean([low <= truth <= high for low, high in bounds])
    assert covered >= 0.93
    assert tie or covered <= 0.97


# G*Power 3.1, t-test of two dependent means, two-sided 5 %, power 80 %.
@pytest.mark.parametrize(("effect", "pairs"), [(0.2, 199), (0.5, 34), (-0.5, 34), (0.8, 15)])
def test_pairs_needed_are_those_of_the_usual_tables(effect, pairs):
    assert pairs_needed(effect) == pairs


def test_that_many_pairs_find_the_effect_four_times_in_five():
    rng = np.random.default_rng(16)
    found = ttest_1samp(rng.normal(0.3, 1, size=(4_000, pairs_needed(0.3))), 0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.025)


def test_holms_correction_of_the_textbook_example():
    # statsmodels.stats.multitest.multipletests([0.01, 0.04, 0.03, 0.005], method="holm")
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.4, 0.9]) == pytest.approx([0.8, 0.9])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holms_correction_keeps_the_order_and_never_helps(p_values):
    corrected = holm(p_values)
    assert all(p <= adjusted <= 1 for p, adjusted in zip(p_values, corrected, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(np.array(corrected)[order]) >= 0)
    assert min(corrected) == pytest.approx(min(1, len(p_values) * min(p_values)))


def test_holms_correction_bounds_the_chance_of_any_false_finding():
    p_values = np.random.default_rng(17).random((2_000, 4))
    false = np.mean([min(holm(row)) < 0.05 for row in p_values])
    assert false == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize("n", [1, 2, 30])
def test_all_ties_are_no_evidence(n):
    found = compare(np.arange(n), np.arange(n))
    assert (found.difference, found.low, found.high, found.win_rate) == (0, 0, 0, 0.5)
    assert (found.ties, found.p_value, found.p_wilcoxon) == (n, 1, 1)
    assert found.effect_size is None and found.pairs_needed is None
    assert found.win_low < 0.5 < found.win_high


def test_one_pair_has_no_spread():
    found = compare([1.0], [1.5])
    assert found.standard_error is None and found.effect_size is None and found.pairs_needed is None
    assert (found.p_value, found.p_wilcoxon) == (1, 1)
    assert found.win_low < 0.25 and found.win_high == 1


def test_a_constant_gain_has_no_effect_size():
    found = compare(np.arange(20) / 7, np.arange(20) / 7 + 0.1)
    assert found.effect_size is None and found.pairs_needed is None
    assert found.p_value < 1e-4


def test_a_difference_without_better_or_worse_is_that_of_the_comparison():
    a, b = np.random.default_rng(18).random((2, 50))
    sample = PairedSample({"a": a, "b": b})
    plain, compared = sample.difference_interval("a", "b"), sample.paired_difference("a", "b")
    assert (plain.mean, plain.low, plain.high) == (compared.difference, compared.low, compared.high)


# Several seeds per prompt: U units of S items each, of which the unit explains the share `icc` of the variance.


def clustered(rng, trials, units=50, seeds=4, icc=0.8, shift=0.0):
    """Normal differences (trials, units * seeds), variance 1, and their labels."""
    own, shared = rng.normal(size=(trials, units, seeds)), rng.normal(size=(trials, units, 1))
    values = shift + np.sqrt(icc) * shared + np.sqrt(1 - icc) * own
    return values.reshape(trials, -1), np.repeat(np.arange(units), seeds)


def coverage(trials, labels, truth):
    sample = PairedSample(dict(enumerate(trials)), labels)
    found = [sample.mean_interval(k) for k in range(len(trials))]
    return np.mean([one.low <= truth <= one.high for one in found])


def test_intervals_cover_the_truth_where_the_seeds_of_a_prompt_are_alike():
    trials, labels = clustered(np.random.default_rng(20), 1_000)
    assert 0.93 <= coverage(trials, labels, 0.0) <= 0.97
    assert coverage(trials, None, 0.0) < 0.8  # what resampling single images would claim


def test_intervals_cover_the_truth_where_prompts_have_different_numbers_of_seeds():
    rng = np.random.default_rng(21)
    trials, labels = clustered(rng, 500, units=60, seeds=8)
    kept = np.concatenate([np.flatnonzero(labels == u)[: 1 + u % 8] for u in range(60)])
    assert 0.92 <= coverage(trials[:, kept], labels[kept], 0.0) <= 0.97


def test_wilsons_interval_and_both_tests_allow_for_seeds_that_are_alike():
    trials, labels = clustered(np.random.default_rng(22), 1_000)
    sample = PairedSample({"a": np.zeros(200)} | dict(enumerate(trials)), labels)
    found = [sample.paired_difference("a", k) for k in range(1_000)]
    assert 0.93 <= np.mean([one.win_low <= 0.5 <= one.win_high for one in found]) <= 0.975
    for test in ("p_value", "p_wilcoxon"):
        assert np.mean([getattr(one, test) < 0.05 for one in found]) <= 0.065
    single = [wilcoxon(trial).pvalue < 0.05 for trial in trials[:200]]
    assert np.mean(single) > 0.15  # what a test of single images would claim


def test_statistics_of_equal_units_are_those_of_their_means():
    (change,), labels = clustered(np.random.default_rng(23), 1, shift=0.4)
    means = change.reshape(50, 4).mean(axis=1)
    found = PairedSample({"a": np.zeros(200), "b": change}, labels).paired_difference("a", "b")
    alone = compare(np.zeros(50), means)
    assert (found.n, found.units, alone.units) == (200, 50, 50)
    for name in ("difference", "standard_error", "low", "high", "effect_size", "p_value", "p_wilcoxon"):
        assert getattr(found, name) == pytest.approx(getattr(alone, name)), name
    assert (found.units_better, found.units_worse) == (alone.wins, alone.losses)
    assert found.wins == (change > 0).sum()
    assert found.pairs_needed == 4 * alone.pairs_needed
    assert found.win_high - found.win_low > np.subtract(*wilson_interval(found.win_rate, 200)[::-1])


def test_that_many_pairs_of_repeated_prompts_find_the_effect_four_times_in_five():
    rng = np.random.default_rng(24)
    (pilot,), labels = clustered(rng, 1, units=20_000, seeds=3, icc=0.5, shift=0.3)
    needed = PairedSample({"a": 0 * pilot, "b": pilot}, labels).paired_difference("a", "b").pairs_needed
    trials, _ = clustered(rng, 2_000, units=needed // 3, seeds=3, icc=0.5, shift=0.3)
    found = ttest_1samp(trials.reshape(2_000, -1, 3).mean(axis=2), 0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.03)


@settings(max_examples=25, deadline=None)
@given(graded_pairs)
def test_units_of_one_item_change_nothing(pairs):
    a, b = np.array(pairs, dtype=float).T
    plain = PairedSample({"a": a, "b": b}).paired_difference("a", "b")
    assert PairedSample({"a": a, "b": b}, [f"prompt {i}" for i in range(len(a))]).paired_difference("a", "b") == plain
    assert plain.units == plain.n
    assert (plain.units_better, plain.units_worse) == (plain.wins, plain.losses)


@pytest.mark.parametrize("labels", [[0] * 6, [0, 0, 0, 1, 1, 1]], ids=["one unit", "units that agree"])
def test_units_that_do_not_differ_have_no_spread(labels):
    change = np.array([0.5, 1.0, -0.5] * 2)
    found = PairedSample({"a": np.zeros(6), "b": change}, labels).paired_difference("a", "b")
    assert found.low == found.high == pytest.approx(1 / 3)
    assert found.effect_size is None and found.pairs_needed is None
    assert found.win_low < 2 / 3 < found.win_high


@pytest.mark.parametrize("changes", [[1.0], [-1, 1, 1], [2, -2, 1, 3, 3, -1], [1] * 13, [1, -2, 3], [1, 1, -1] * 9])
def test_the_signed_rank_test_is_scipys(changes):
    """With ties too, of which SciPy tries all signs one by one."""
    changes = np.array(changes, dtype=float)
    assert signed_rank_test(changes) == pytest.approx(float(wilcoxon(changes).pvalue), rel=1e-12)


def test_no_change_is_no_difference():
    assert signed_rank_test(np.zeros(0)) == 1
