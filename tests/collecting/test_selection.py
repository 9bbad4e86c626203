"""Which pairs are kept: the rule that the config describes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golden_noise.collecting.selection import Selection
from golden_noise.errors import UserError

SCORES = {"pickscore": (20.0, 20.5), "aes": (5.0, 4.0), "clipscore": (0.8, 0.8)}


@pytest.mark.parametrize(
    ("select_by", "margin", "kept"),
    [
        ("pickscore", 0.0, True),
        ("pickscore", 0.4, True),
        ("pickscore", 0.5, False),  # more than the margin
        ("aes", 0.0, False),
        ("aes", -1.5, True),
        ("clipscore", 0.0, False),  # no better is not better
        ({"pickscore": 1, "aes": 0.4}, 0.0, True),
        ({"pickscore": 1, "aes": 0.5}, 0.0, False),
        ({"pickscore": 2, "aes": 0.5}, 0.4, True),
        ({"aes": -1}, 0.9, True),
        (["pickscore"], 0.0, True),
        (["pickscore", "aes"], 0.0, False),
        (["pickscore", {"pickscore": 3, "aes": 1}], 0.0, True),
    ],
)
def test_rules(select_by, margin, kept):
    assert Selection.parse(select_by, margin, SCORES).accepts(SCORES) is kept


def test_nothing_selects():
    assert Selection.parse(None, 0.0, SCORES) is None


@pytest.mark.parametrize(
    ("select_by", "words"),
    [
        ("hpsv2", "hpsv2.*pickscore, aes, clipscore"),
        ({"pickscore": 1, "hpsv2": 1}, "hpsv2"),
        (["pickscore", "hpsv2"], "hpsv2"),
        ({"pickscore": "much"}, "weight of pickscore is much"),
        ({"pickscore": True}, "weight of pickscore is True"),
        ({"pickscore": 0}, "weight of pickscore is 0"),
        ({}, "weighted sum"),
        ([], "weighted sum"),
        ([["pickscore"]], "weighted sum"),
        (3, "weighted sum"),
    ],
)
def test_other_forms_cost_one_line(select_by, words):
    with pytest.raises(UserError, match=words) as error:
        Selection.parse(select_by, 0.0, SCORES)
    assert "\n" not in str(error.value)


scores = st.fixed_dictionaries({name: st.tuples(*[st.integers(-50, 50)] * 2) for name in SCORES})


@given(scores, st.integers(-20, 20))
def test_a_list_is_the_conjunction_of_its_parts(found, margin):
    parts = ["pickscore", "aes", {"clipscore": 2}]
    each = [Selection.parse(part, margin, SCORES).accepts(found) for part in parts]
    assert Selection.parse(parts, margin, SCORES).accepts(found) is all(each)


@given(scores, st.integers(-20, 20), st.integers(1, 5))
def test_weights_scale_with_the_margin(found, margin, factor):
    small = Selection.parse({"pickscore": 1, "aes": 2}, margin, SCORES)
    large = Selection.parse({"pickscore": factor, "aes": 2 * factor}, factor * margin, SCORES)
    assert small.accepts(found) is large.accepts(found)
