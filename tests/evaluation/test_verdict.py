"""Every branch of the verdict, from comparisons with known intervals."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golden_noise.evaluation.verdict import interval, outcome, percent, probability, sign, signed, verdict
from golden_noise.generation.names import CONTROLS

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
        "constant": {"factor": 0.6} if "constant" in gains else {},
    }


BEATEN, RIVAL = (NONE, ABOVE), (SMALL, LEVEL)


def controlled(shuffled=BEATEN, random_shift=BEATEN, rescaled=BEATEN, constant=BEATEN):
    """A clear gain of NPNet beside four controls, each given as (its gain, NPNet's lead over it)."""
    controls = {"shuffled": shuffled, "random_shift": random_shift, "rescaled": rescaled, "constant": constant}
    gains = {name: gain for name, (gain, _) in controls.items()}
    return summary({"npnet": GAIN} | gains, {name: lead for name, (_, lead) in controls.items()})


def doubted(found, a, b, **signs):
    """The same with other results of the sign test in one comparison, which by default does not confirm it."""
    changed = {"p_holm": 0.3, "units_better": 760, "units_worse": 740} | signs
    next(c for c in found["comparisons"] if (c["a"], c["b"]) == (a, b)).update(changed)
    return found


CASES = {
    "absent": (summary({"search": GAIN}), "NPNet was not evaluated; the search changes strict by +0.100"),
    "loss": (
        summary({"npnet": LOSS}),
        "NPNet loses strict against standard noise: -0.050 [-0.070, -0.030], 2,000",
    ),
    "none": (summary({"npnet": NONE, "search": GAIN}), "no clear change in strict"),
    "few": (summary({"npnet": GAIN}, n=9), "9 pairs are too few to say anything about strict"),
    "golden": (controlled(rescaled=(LOSS, ABOVE)), "the gain is golden noise"),
    "partly": (controlled(rescaled=(SMALL, ABOVE)), "rescaled noise control alone gains +0.040"),
    "control": (controlled(random_shift=RIVAL), "random shift control gains +0.040 [+0.020, +0.060] too"),
    "unclear": (controlled(shuffled=(NONE, LEVEL)), "not clearly above the shuffled prompts control"),
    "uncontrolled": (
        summary({"npnet": GAIN, "shuffled": NONE}, {"shuffled": ABOVE}),
        "controls not run: random_shift, rescaled, constant",
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
    found = controlled(shuffled=(NONE, LEVEL), rescaled=RIVAL)
    assert outcome(found, "strict") == "control"
    assert "rescaled noise control" in verdict(found, "strict")


def test_a_control_that_gains_is_named_before_one_that_may_have_gained_more():
    found = controlled(shuffled=((0.05, -0.01, 0.11), LEVEL), rescaled=RIVAL)
    assert outcome(found, "strict") == "control"
    assert "but the rescaled noise control gains +0.040 [+0.020, +0.060] too" in verdict(found, "strict")


def test_a_control_that_gains_but_is_beaten_does_not_speak_for_one_that_is_merely_close():
    found = controlled(shuffled=(NONE, LEVEL), rescaled=(SMALL, ABOVE))
    assert outcome(found, "strict") == "unclear"
    assert "not clearly above the shuffled prompts control (+0.010" in verdict(found, "strict")
    assert "is open" in verdict(found, "strict")


def test_a_mere_factor_that_does_as_well_is_named_with_its_number():
    said = verdict(controlled(constant=RIVAL), "strict")
    assert "; but a mere factor of 0.6 gains +0.040 [+0.020, +0.060] too and NPNet is not clearly above it" in said
    assert said.endswith("this is not golden noise.")
    assert "a mere factor of 0.6 alone gains +0.040" in verdict(controlled(constant=(SMALL, ABOVE)), "strict")


def test_the_best_constant_may_be_standard_noise_itself():
    """Then NPNet's lead over it is its gain."""
    found = controlled(constant=((0.0, 0.0, 0.0), GAIN))
    doubted(found, "standard", "constant", units_better=0, units_worse=0, p_holm=1.0)
    found["constant"]["factor"] = 1.0
    assert outcome(found, "strict") == "golden"


def test_without_the_constant_nothing_is_called_golden_noise():
    found = controlled()
    del found["methods"]["constant"]
    assert outcome(found, "strict") == "uncontrolled"
    assert "controls not run: constant, so it is not known whether" in verdict(found, "strict")


def test_images_from_elsewhere_have_a_constant_without_a_number():
    found = controlled(constant=RIVAL) | {"constant": {}}
    assert "the constant factor control gains" in verdict(found, "strict")


def test_a_gain_that_the_sign_test_does_not_confirm_is_no_clear_gain():
    found = doubted(controlled(), "standard", "npnet")
    assert outcome(found, "strict") == "none"
    assert verdict(found, "strict").startswith("NPNet shows no clear change in strict")
    assert outcome(doubted(summary({"npnet": LOSS}), "standard", "npnet"), "strict") == "none"


def test_a_lead_that_the_sign_test_does_not_confirm_leaves_it_open():
    found = doubted(controlled(), "shuffled", "npnet")
    assert outcome(found, "strict") == "unclear"
    assert "(+0.060 [+0.040, +0.080], p 0.300 by the sign test)" in verdict(found, "strict")
    found = doubted(controlled(rescaled=(SMALL, ABOVE)), "rescaled", "npnet", p_holm=0.05)
    assert outcome(found, "strict") == "control"
    assert "p 0.050 by the sign test): this is not golden noise" in verdict(found, "strict")


def test_a_control_gains_even_if_the_sign_test_does_not_confirm_it():
    assert outcome(doubted(controlled(rescaled=(SMALL, ABOVE)), "standard", "rescaled"), "strict") == "partly"


def test_a_sign_test_in_the_other_direction_confirms_nothing():
    opposite = {"units_better": 600, "units_worse": 900, "p_holm": 0.001}
    assert outcome(doubted(controlled(), "standard", "npnet", **opposite), "strict") == "none"
    assert outcome(doubted(controlled(), "rescaled", "npnet", **opposite), "strict") == "unclear"


FOUND = st.tuples(st.floats(-0.1, 0.1), st.floats(0, 0.1))
SIGNS = st.tuples(st.integers(0, 60), st.integers(0, 60), st.floats(0, 1))


@given(st.data())
def test_the_sentence_never_contradicts_the_intervals_and_the_corrected_p_values(data):
    found = controlled()
    for comparison in found["comparisons"]:
        middle, half = data.draw(FOUND)
        better, worse, p = data.draw(SIGNS)
        comparison |= {"difference": middle, "ci95": [middle - half, middle + half], "p_holm": p}
        comparison |= {"units_better": better, "units_worse": worse}
    by_pair = {(c["a"], c["b"]): c for c in found["comparisons"]}
    gain, said = by_pair["standard", "npnet"], verdict(found, "strict")
    if said.startswith("NPNet gains"):
        assert gain["ci95"][0] > 0 and gain["p_holm"] < 0.05 and gain["units_better"] > gain["units_worse"]
    if said.startswith("NPNet loses"):
        assert gain["ci95"][1] < 0 and gain["p_holm"] < 0.05 and gain["units_better"] < gain["units_worse"]
    if re.search("(gain|,) is golden noise", said):
        assert all(sign(by_pair[control, "npnet"]) > 0 for control in CONTROLS)
    if "no control gains" in said:
        assert all(by_pair["standard", control]["ci95"][0] <= 0 for control in CONTROLS)


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
        "does not confirm the interval: 760 pairs better and 740 worse, win rate",
    ),
    "a mean gain, mostly losses": (GAIN, 600, 900, 0.001, "it loses more often than it wins, but not on average: 600"),
    "many small gains": (
        NONE,
        900,
        600,
        0.001,
        "it wins more often than it loses, but not clearly on average: 900 pairs",
    ),
    "a loss in few large steps": (LOSS, 760, 740, 0.3, "The sign test does not confirm the interval"),
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
