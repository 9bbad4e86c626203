"""Every branch of the verdict, from comparisons with known intervals."""

import re

import pytest

from golden_noise.evaluation.verdict import interval, outcome, percent, probability, signed, verdict

GAIN, SMALL = (0.10, 0.08, 0.12), (0.04, 0.02, 0.06)
NONE, LOSS = (0.0, -0.02, 0.02), (-0.05, -0.07, -0.03)
ABOVE, LEVEL = (0.06, 0.04, 0.08), (0.01, -0.01, 0.03)


def summary(gains, leads=None, kept=None, n=2000):
    """A summary with these ``gains`` over standard noise and these ``leads`` of NPNet over controls."""
    pairs = {("standard", method): found for method, found in gains.items()}
    pairs |= {(control, "npnet"): found for control, found in (leads or {}).items()}
    return {
        "methods": {"standard": {}} | {method: {} for method in gains},
        "comparisons": [
            {
                "metric": "strict",
                "a": a,
                "b": b,
                "task": "all",
                "n": n,
                "difference": found[0],
                "ci95": found[1:],
                "units": n,
                "units_better": n // 2 + (n // 2 if found[0] > 0 else 0),
                "units_worse": n // 2 + (n // 2 if found[0] < 0 else 0),
                "win_rate": 0.5,
                "p_holm": 0.001 if found[1] > 0 or found[2] < 0 else 0.5,
            }
            for (a, b), found in pairs.items()
        ],
        "kept_share": {"strict": kept},
    }


def controlled(shuffled, random_shift, rescaled):
    """A clear gain of NPNet beside three controls, each given as (its gain, NPNet's lead over it)."""
    controls = {"shuffled": shuffled, "random_shift": random_shift, "rescaled": rescaled}
    gains = {name: gain for name, (gain, _) in controls.items()}
    return summary({"npnet": GAIN} | gains, {name: lead for name, (_, lead) in controls.items()})


BEATEN, RIVAL = (NONE, ABOVE), (SMALL, LEVEL)
CASES = {
    "absent": (summary({"search": GAIN}), "NPNet was not evaluated; the search changes strict by +0.100"),
    "loss": (
        summary({"npnet": LOSS}),
        "NPNet loses strict against standard noise: -0.050 [-0.070, -0.030], 2,000",
    ),
    "none": (summary({"npnet": NONE, "search": GAIN}), "no clear change in strict"),
    "few": (summary({"npnet": GAIN}, n=9), "9 pairs are too few to say anything about strict"),
    "golden": (controlled(BEATEN, BEATEN, (LOSS, ABOVE)), "the gain is golden noise"),
    "partly": (controlled(BEATEN, BEATEN, (SMALL, ABOVE)), "rescaled noise control alone gains +0.040"),
    "control": (controlled(BEATEN, RIVAL, BEATEN), "random shift control gains +0.040 [+0.020, +0.060] too"),
    "unclear": (controlled((NONE, LEVEL), BEATEN, BEATEN), "not clearly above the shuffled prompts control"),
    "uncontrolled": (
        summary({"npnet": GAIN, "shuffled": NONE}, {"shuffled": ABOVE}),
        "controls not run: random_shift, rescaled",
    ),
}


@pytest.mark.parametrize("expected", CASES)
def test_each_finding_has_its_outcome_and_its_words(expected):
    found, words = CASES[expected]
    assert outcome(found, "strict") == expected
    assert words in verdict(found, "strict")


def test_only_a_gain_above_every_control_is_called_golden_noise():
    words = {case: verdict(found, "strict") for case, (found, _) in CASES.items()}
    called_golden = [case for case, text in words.items() if re.search("(gain|,) is golden noise", text)]
    assert called_golden == ["golden", "partly"]
    assert "only the rest, +0.060 [+0.040, +0.080], is golden noise." in words["partly"]
    assert words["control"].endswith("this is not golden noise.")


def test_a_control_with_the_same_gain_outweighs_one_that_is_merely_close():
    found = controlled((NONE, LEVEL), BEATEN, RIVAL)
    assert outcome(found, "strict") == "control"
    assert "rescaled noise control" in verdict(found, "strict")


def test_a_rival_control_decides_even_when_the_others_were_not_run():
    found = summary({"npnet": GAIN, "rescaled": SMALL}, {"rescaled": LEVEL})
    assert outcome(found, "strict") == "control"


def test_an_interval_that_touches_zero_is_no_clear_gain():
    assert outcome(summary({"npnet": (0.02, 0.0, 0.04)}), "strict") == "none"
    assert outcome(summary({"npnet": (-0.02, -0.04, 0.0)}), "strict") == "none"


def test_the_kept_share_is_part_of_the_sentence():
    found = summary({"npnet": GAIN, "search": GAIN}, kept={"n": 2000, "share": 0.58, "ci95": [0.4, 0.77]})
    assert ", 58 % [40 %, 77 %] of the search's gain;" in verdict(found, "strict")


def test_numbers_are_written_plainly():
    assert [signed(value) for value in (0.0314, -0.0314, -0.0001, 0, -0.0)] == [
        "+0.031",
        "-0.031",
        "-0.000",
        "+0.000",
        "+0.000",
    ]
    assert interval([-0.0001, 0.5], signed) == "[-0.000, +0.500]"
    assert interval([-0.0001, 0.25]) == "[0.000, 0.250]"
    assert percent(1.034) == "103 %"
    assert (probability(0.0004), probability(0.04)) == ("<0.001", "0.040")


def test_an_effect_that_is_not_clear_comes_with_the_pairs_it_would_need():
    found = summary({"npnet": NONE})
    found["comparisons"][0]["pairs_needed"] = 12_345
    assert "need about 12,345 pairs" in verdict(found, "strict")


def test_a_handful_of_pairs_that_differ_is_no_gain():
    few = summary({"npnet": GAIN})
    few["comparisons"][0] |= {"units_better": 5, "units_worse": 0}
    assert outcome(few, "strict") == "few"
    assert verdict(few, "strict") == "Only 5 of 2,000 pairs differ in strict: too few to say anything about it."
    few["comparisons"][0] |= {"units_better": 6}
    assert outcome(few, "strict") == "uncontrolled"
    same = summary({"npnet": (0.0, 0.0, 0.0)})
    same["comparisons"][0] |= {"units_better": 0, "units_worse": 0}
    assert outcome(same, "strict") == "none"


def test_one_pair_is_singular():
    assert verdict(summary({"npnet": GAIN}, n=1), "strict").startswith("1 pair is too few")


def test_few_prompts_are_few_however_many_seeds_they_have():
    found = summary({"npnet": GAIN})
    found["comparisons"][0] |= {"units": 9}
    assert outcome(found, "strict") == "few"
    assert verdict(found, "strict").startswith("9 prompts are too few to say anything about strict")
    found["comparisons"][0] |= {"units": 500, "units_better": 1, "units_worse": 0}
    assert verdict(found, "strict").startswith("Only 1 of 500 prompts differs in strict")


DISSENT = {
    "no dissent on a gain": (GAIN, 900, 600, 0.001, None),
    "no dissent on nothing": (NONE, 750, 750, 0.5, None),
    "a gain in few large steps": (
        GAIN,
        760,
        740,
        0.3,
        "does not confirm that: 760 pairs better and 740 worse, win rate",
    ),
    "a mean gain, mostly losses": (GAIN, 600, 900, 0.001, "it loses more often than it wins: 600 pairs better and 900"),
    "many small gains": (NONE, 900, 600, 0.001, "By the sign test it wins more often than it loses: 900 pairs"),
    "a loss in few large steps": (LOSS, 760, 740, 0.3, "The sign test does not confirm that"),
}


@pytest.mark.parametrize(("gain", "better", "worse", "p", "words"), DISSENT.values(), ids=DISSENT)
def test_the_sign_test_is_mentioned_where_it_disagrees_with_the_mean(gain, better, worse, p, words):
    found = summary({"npnet": gain})
    rate = 0.5 + (better - worse) / 4_000
    found["comparisons"][0] |= {"units_better": better, "units_worse": worse, "p_holm": p, "win_rate": rate}
    said = verdict(found, "strict")
    assert (words or ".") in said
    assert ("sign test" in said) == (words is not None)
    if words:
        assert said.endswith(f"win rate {100 * rate:.1f} %, p {probability(p)} (Holm).")


def test_repeated_prompts_are_counted():
    found = summary({"npnet": NONE})
    found["comparisons"][0] |= {"units": 250, "p_holm": 0.001, "units_better": 150, "units_worse": 100}
    assert "2,000 pairs of 250 prompts" in verdict(found, "strict")
    assert "150 prompts better and 100 worse" in verdict(found, "strict")
