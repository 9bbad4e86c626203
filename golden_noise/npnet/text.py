"""Text injection: the prompt scales and shifts the normalised noise (arXiv 2411.09502)."""

from collections.abc import Sequence

import torch
from diffusers.models.normalization import AdaGroupNorm
from torch import Tensor


class TextInjection(AdaGroupNorm):
    """`t = (1 + scale(p)) * GroupNorm(x) + shift(p)`, scale and shift per channel, linear in the prompt p.

    Args:
        channels: C of the noise.
        embeds_shape: (L, D) of the prompt embedding. One matrix maps all L*D numbers, so L is fixed.
    """

    def __init__(self, channels: int, embeds_shape: Sequence[int]):
        tokens, width = embeds_shape
        super().__init__(tokens * width, channels, num_groups=1, eps=1e-6)

    def forward(self, noise_BCHW: Tensor, embeds_BLD: Tensor) -> Tensor:
        """Returns t, shaped as the noise."""
        return super().forward(noise_BCHW, torch.flatten(embeds_BLD, 1))
