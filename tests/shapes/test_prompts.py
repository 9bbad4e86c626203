from collections import Counter

import pytest

from golden_noise.errors import UserError
from golden_noise.shapes.prompts import draw_prompts, split_captions
from golden_noise.shapes.scenes import TASKS, requests, requests_by_task


def test_split_is_disjoint_and_covers_every_task():
    train, test = split_captions("train"), split_captions("test")
    for task, asked in requests_by_task().items():
        assert not {*train[task]} & {*test[task]}
        assert sorted([*train[task], *test[task]]) == sorted(request.text for request in asked)
        assert 0.15 < len(test[task]) / len(asked) < 0.25


def test_split_never_changes():
    assert split_captions("test")["single_object"] == ["a cross", "a photo of a cross", "a drawing of a triangle"]


@pytest.mark.parametrize("split", ["train", "test"])
def test_tasks_are_balanced_and_captions_are_of_the_split(split):
    prompts = draw_prompts(split, 61, seed=3)
    assert [prompt.index for prompt in prompts] == list(range(61))
    counts = Counter(prompt.tags["task"] for prompt in prompts)
    assert set(counts.values()) == {10, 11}
    assert set(counts) == {*TASKS}
    captions = split_captions(split)
    for prompt in prompts:
        assert prompt.text in captions[prompt.tags["task"]]
        assert requests()[prompt.text].task == prompt.tags["task"]


def test_drawing_repeats_and_more_prompts_extend_fewer():
    assert draw_prompts("train", 50, seed=1) == draw_prompts("train", 50, seed=1)
    assert draw_prompts("train", 50, seed=1)[:20] == draw_prompts("train", 20, seed=1)


def test_seed_changes_captions_and_noises():
    first, second = draw_prompts("test", 50, seed=0), draw_prompts("test", 50, seed=1)
    assert [prompt.text for prompt in first] != [prompt.text for prompt in second]
    assert not {prompt.seed for prompt in first} & {prompt.seed for prompt in second}


def test_no_noise_is_drawn_twice():
    drawn = [draw_prompts(split, 2000, seed) for split in ("train", "test") for seed in (0, 1, 7)]
    # torch's CPU generator reads 32 bits of a seed.
    seeds = [prompt.seed % 2**32 for prompts in drawn for prompt in prompts]
    assert len(set(seeds)) == len(seeds)


def test_unknown_split():
    with pytest.raises(UserError, match=r"prompts.split='val'"):
        draw_prompts("val", 10)
    with pytest.raises(UserError, match=r"prompts\.repeats=0"):
        draw_prompts("test", 10, repeats=0)


def test_repeats_are_further_noises_of_the_same_captions():
    once, often = draw_prompts("test", 6, seed=2), draw_prompts("test", 17, seed=2, repeats=3)
    assert [prompt.text for prompt in often] == [prompt.text for prompt in once for _ in range(3)][:17]
    assert len({prompt.seed for prompt in often}) == 17
    assert [prompt.tags for prompt in often[::3]] == [prompt.tags for prompt in once]
