"""Prompts of the miniature, split so that no caption is both learned from and tested on."""

from typing import Literal

import numpy as np

from golden_noise.errors import UserError
from golden_noise.prompts import Prompt
from golden_noise.shapes.scenes import TASKS, requests_by_task

TEST_SHARE = 0.2
SPLIT_SEED = 2411_09502  # fixed: the split belongs to the benchmark, not to a run
SEED_STRIDE = 10_000_000  # keeps the noise of different seeds apart


def draw_prompts(split: Literal["train", "test"], count: int, seed: int = 0, repeats: int = 1) -> list[Prompt]:
    """`count` prompts, every task equally often, each with a noise seed of its own.

    Args:
        split: "test" draws from a fixed fifth of every task's captions, "train" from the rest.
        count: number of prompts; captions repeat, seeds never do.
        seed: draws captions and noise seeds; train and test never share a noise.
        repeats: noises in a row for each caption that is drawn.

    Raises:
        UserError: an unknown split, or `repeats` below 1.
    """
    if repeats < 1:
        raise UserError(f"prompts.repeats={repeats} must be >= 1")
    captions = split_captions(split)
    rng = np.random.default_rng((seed, split == "test"))
    first = SEED_STRIDE * (2 * seed + (split == "test"))
    prompts: list[Prompt] = []
    for index in range(count):
        if index % repeats == 0:
            task = TASKS[index // repeats % len(TASKS)]
            text = captions[task][rng.integers(len(captions[task]))]
        prompts.append(Prompt(index, text, first + index, {"task": task}))
    return prompts


def split_captions(split: Literal["train", "test"]) -> dict[str, list[str]]:
    """The captions of one side of the split, by task."""
    if split not in ("train", "test"):
        raise UserError(f"prompts.split={split!r} must be 'train' or 'test'")
    chosen = {}
    for number, (task, requests) in enumerate(requests_by_task().items()):
        order = np.random.default_rng((SPLIT_SEED, number)).permutation(len(requests))
        held_out = round(TEST_SHARE * len(requests))
        side = order[:held_out] if split == "test" else order[held_out:]
        chosen[task] = [requests[i].text for i in sorted(side)]
    return chosen
