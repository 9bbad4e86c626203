"""Another prompt for every prompt: at once, whatever the set."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golden_noise.errors import UserError
from golden_noise.evaluation.shuffling import other_prompts
from golden_noise.prompts import Prompt


def prompts_of(counts, order=None):
    """As many prompts of each text as ``counts`` says, in the order of a permutation."""
    texts = [f"text {i}" for i, count in enumerate(counts) for _ in range(count)]
    return [Prompt(index, texts[i], index) for index, i in enumerate(order or range(len(texts)))]


def check(prompts):
    others = other_prompts(prompts)
    texts = Counter(prompt.text for prompt in prompts)
    assert len(others) == len(prompts)
    assert all(other.text != prompt.text for prompt, other in zip(prompts, others, strict=True))
    used = Counter(other.index for other in others)
    most = max(texts.values())
    if 2 * most <= len(prompts):
        assert set(used.values()) == {1}
    else:  # the rest takes turns where the frequent text stands
        rest = len(prompts) - most
        assert {used[prompt.index] for prompt in prompts if texts[prompt.text] < most} <= {
            most // rest,
            -(-most // rest),
        }
    assert others == other_prompts(prompts)


@settings(max_examples=300)
@given(st.data())
def test_every_set_of_two_texts_or_more_has_others(data):
    counts = data.draw(st.lists(st.integers(1, 12), min_size=2, max_size=12))
    check(prompts_of(counts, data.draw(st.permutations(range(sum(counts))))))


@pytest.mark.parametrize(
    "counts",
    [
        [4] * 5,
        [10] * 20,
        [10] * 100,
        [3] * 2,
        [4] * 3,
        [4] * 20,
        [2, 3],
        [1, 1],
        [5, 5],
        [6, 4, 1],
        [100, *[1] * 900],
        [5_000, 5_000],
        [9_999, 1],
        [9_000, *[1] * 1_000],
        [4_999, 3_000, *[1] * 2_001],
        [1] * 10_000,
        [10] * 1_000,
    ],
    ids=lambda counts: f"{len(counts)} texts of {sum(counts)}",
)
def test_sets_with_equal_prompts(counts):
    check(prompts_of(counts))


def test_repeats_of_a_prompt_meet_several_others():
    prompts = prompts_of([10] * 20)
    partners = {(prompt.text, other.text) for prompt, other in zip(prompts, other_prompts(prompts), strict=True)}
    assert len(partners) > 100


@pytest.mark.parametrize("count", [1, 12])
def test_one_text_has_no_other(count):
    with pytest.raises(UserError, match="at least two different prompts"):
        other_prompts(prompts_of([count]))
