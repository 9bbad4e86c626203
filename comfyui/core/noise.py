# Vendored from golden_noise/noise.py by python -m golden_noise.npnet.vendor; do not edit.
"""Starting noise that a seed fixes on every machine."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

SAMPLER, SHIFT, LEARNING = 1, 2, 3  # other uses of a prompt's seed than its starting noise


def draw_noise(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Standard normal noise, one CPU generator per seed, so that neither device, dtype nor batch changes it.

    torch's CPU generator reads the lowest 32 bits of a seed only.

    Returns:
        (len(seeds), *shape) float32 on the CPU.
    """
    generators = (torch.Generator("cpu").manual_seed(seed) for seed in seeds)
    return torch.stack([torch.randn(tuple(shape), generator=generator) for generator in generators])


def derived_seed(seed: int, use: int) -> int:
    """A seed for another use of `seed`, unrelated to it. It is hashed: 32 bits would cut an offset off."""
    return int(np.random.SeedSequence((seed % 2**32, use)).generate_state(1)[0])


def sampler_generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One CPU generator per seed for stochastic samplers, unrelated to the starting noise of the same seed."""
    return [torch.Generator("cpu").manual_seed(derived_seed(seed, SAMPLER)) for seed in seeds]
