"""Prompts with noise: fresh in every epoch for training, their own for validation."""

import numpy as np
import torch

from golden_noise.noise import draw_noise
from golden_noise.prompts import Prompt
from golden_noise.training.prompt_data import PromptDataset

SHAPE = (4, 8, 8)
PROMPTS = [Prompt(i, f"prompt {i}", 100 + i) for i in range(3)]
ROWS = np.array([[0, 2], [0, 0]], np.int32)


def noise(epoch, seed=0, fresh=True):
    return PromptDataset(PROMPTS, SHAPE, seed, fresh).read(epoch, ROWS)["noise"]


def test_training_noise_is_fresh_for_every_epoch_row_and_seed_and_can_be_repeated():
    first = noise(0)
    assert torch.equal(first, noise(0))
    different = [*first, *noise(1), *noise(0, seed=1)]
    assert all(not torch.equal(a, b) for i, a in enumerate(different) for b in different[:i])


def test_validation_noise_is_that_of_the_prompts_own_seeds():
    for epoch in (0, 1):
        assert torch.equal(noise(epoch, seed=epoch, fresh=False), draw_noise([102, 100], SHAPE))


def test_names_and_texts_are_those_of_the_rows():
    batch = PromptDataset(PROMPTS, SHAPE, 0, True).read(0, ROWS)
    assert (batch["key"], batch["prompt"]) == (["000002", "000000"], ["prompt 2", "prompt 0"])
