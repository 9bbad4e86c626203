"""What comes from visitors is checked, whatever it is."""

import math

import pytest

from golden_noise.app.choices import Choice, Limits
from golden_noise.errors import UserError

GIVEN = {
    "prompt": "  a red\ncircle ",
    "seed": 3.0,
    "steps": 4,
    "guidance": 1,
    "network": "bundled",
    "strength": 0.5,
    "factor": 0.70001,
    "scores": ["reward", "strict", "reward"],
}


def checked(**changes):
    return Choice.checked(Limits(), ["bundled", "other"], ["strict", "soft", "reward"], GIVEN | changes)


def test_what_is_chosen_gets_its_types_and_an_order():
    assert checked() == Choice("a red circle", 3, 4, 1.0, "bundled", 0.5, 0.7, ("strict", "reward"))
    assert isinstance(checked().seed, int)


@pytest.mark.parametrize("text", ["ein rotes Fünfeck", "赤い丸", "👩‍👩‍👧", "${oc.env:HOME}", "' \" $(ls) `", "x" * 300])
def test_any_text_is_a_prompt(text):
    assert checked(prompt=text).prompt == text


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("prompt", ["", " \n", None, 3, ["a"], {"path": "/etc/passwd"}, "x" * 301, "a\x00b", "\ud800", "a\x1b[31m"]),
        ("seed", [-1, 2**32, 0.5, None, "3", True, math.nan, math.inf, 10**400, [3]]),
        ("steps", [0, 51, 4.5, None, "4", math.nan]),
        ("guidance", [-0.1, 20.1, None, "1", -math.inf]),
        ("network", ["", "/etc", "outputs/train/x", None, 3, ["bundled"]]),
        ("strength", [-0.1, 2.1, None, "much"]),
        ("factor", [0, 1.6, None, math.nan]),
        ("scores", [None, "strict", ["strictest"], [["strict"]], [3], {"strict": 1}]),
    ],
)
def test_anything_else_is_refused_in_one_line(field, values):
    for value in values:
        with pytest.raises(UserError) as error:
            checked(**{field: value})
        assert "\n" not in str(error.value) and len(str(error.value)) < 120


def test_seeds_in_a_row_end_where_seeds_end():
    assert [prompt.seed for prompt in checked(seed=2**32 - 4).prompts(4)] == list(range(2**32 - 4, 2**32))
    with pytest.raises(UserError, match="at most 4,294,967,292 for 4 seeds"):
        checked(seed=2**32 - 3).prompts(4)
