"""Redness, the toy reward of HyperNoise (Eyring et al. 2025, arXiv 2508.09968): a control that no prompt asks for."""

from collections.abc import Sequence

import torch
from torch import Tensor

from golden_noise.images import from_pil, to_pil


class Redness:
    """Mean of the red pixels minus the mean of the green and blue ones, whatever the prompt."""

    range = (-1.0, 1.0)
    version = "1"

    def score(self, prompts: Sequence[str], images: Tensor) -> Tensor:
        return redness(from_pil(to_pil(images)))

    def loss(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """-score (B,) with gradients; see `DifferentiableMetric`."""
        return -redness(images.to(torch.float32).clamp(0, 1))


def redness(images: Tensor) -> Tensor:
    """Redness (B,) of images (B, 3, H, W)."""
    return images[:, 0].mean(dim=(-2, -1)) - images[:, 1:].mean(dim=(-3, -2, -1))
