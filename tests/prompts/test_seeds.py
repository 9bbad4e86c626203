"""Noise follows from the prompt: equal captions, repeats, learning and evaluation share none."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golden_noise.prompts import Prompt, read_prompts
from golden_noise.prompts.seeds import NoiseSeeds, next_seeds


def seeds(path, **options):
    return [prompt.seed for prompt in read_prompts(path, **options)]


def test_equal_captions_and_repeats_never_share_a_noise(write):
    path = write("a.txt", "one\ntwo\none\none\n")
    found = seeds(path, repeats=50)
    assert len({*found}) == 200
    assert all(0 <= seed < 2**32 for seed in found)
    assert found == seeds(path, repeats=50)
    assert [p.seed for p in read_prompts(path, repeats=60) if p.text == "two"][:50] == found[50:100]


def test_learning_and_evaluation_never_share_a_noise(write):
    path = write("a.txt", "\n".join(f"caption {i}" for i in range(1000)))
    learning, evaluation = seeds(path, repeats=3), seeds(path, repeats=3, use="evaluation")
    assert not {*learning} & {*evaluation}
    assert not {*learning} & {*seeds(path, repeats=3, seed=1, use="evaluation")}  # whatever the seeds of the jobs
    assert not {*learning} & {*seeds(path, repeats=3, seed=1)}


def test_a_further_line_changes_no_other_noise(write):
    few, more = write("a.txt", "one\ntwo\none\n"), write("b.txt", "zero\none\nhalf\ntwo\none\none\n")
    before, after = read_prompts(few), read_prompts(more)
    assert {(p.text, p.seed) for p in before} < {(p.text, p.seed) for p in after}
    assert len({p.seed for p in after}) == 6


def test_a_prompts_own_seed_stays_and_its_repeats_meet_no_other(write):
    rows = [{"caption": "x", "seed": seed} for seed in (1, 2, 3, 2**32 + 7, -1)] + [{"caption": "x"}]
    path = write("a.jsonl", "\n".join(map(json.dumps, rows)))
    assert seeds(path)[:5] == [1, 2, 3, 2**32 + 7, -1]
    found = seeds(path, repeats=3)
    assert found[:15:3] == [1, 2, 3, 2**32 + 7, -1]
    assert len({seed % 2**32 for seed in found}) == 18  # the bits that torch reads


def test_a_drawn_seed_is_not_the_own_one_of_an_equal_caption_below(write):
    (drawn,) = seeds(write("a.txt", "x\n"))
    first, own = seeds(write("a.jsonl", f'{{"caption": "x"}}\n{{"caption": "x", "seed": {drawn}}}'))
    assert own == drawn != first


def test_a_seed_that_is_taken_is_drawn_again():
    first = NoiseSeeds(0, "learning").draw("a", 0)
    drawn = NoiseSeeds(0, "learning")
    drawn.keep("a", first + 2**32)
    assert drawn.draw("a", 0) != first
    assert drawn.draw("b", 0) == NoiseSeeds(0, "learning").draw("b", 0)


def test_seeds_are_the_same_on_every_machine(write):
    path = write("a.txt", "a red circle\na red circle\n")
    assert seeds(path) == [2820448498, 925139218]
    assert seeds(path, seed=1, use="evaluation") == [1289429539, 2156333337]


@pytest.mark.parametrize("use", ["learning", "evaluation"])
def test_the_lowest_bit_tells_the_use(write, use):
    assert {seed % 2 for seed in seeds(write("a.txt", "a\nb\nc"), use=use)} == {int(use == "evaluation")}


def noise_of(row):
    text, seed = row
    return text, seed % 2**32


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(-5, 2**32 + 5)), unique_by=noise_of))
def test_the_next_seeds_meet_none_of_an_equal_prompt(rows):
    prompts = [Prompt(index, text, seed) for index, (text, seed) in enumerate(rows)]
    found = next_seeds(prompts, 4)
    assert [seeds[0] for seeds in found] == [seed for _, seed in rows]
    noises = [(text, seed % 2**32) for (text, _), seeds in zip(rows, found, strict=True) for seed in seeds]
    assert len({*noises}) == 4 * len(rows)
