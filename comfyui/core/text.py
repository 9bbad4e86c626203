# Vendored from golden_noise/npnet/core/text.py by python -m golden_noise.npnet.vendor; do not edit.
"""Text injection: the prompt scales and shifts the normalised noise (arXiv 2411.09502)."""

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LongPrompt = Literal["truncate", "average", "chain"]
LONG_PROMPTS = get_args(LongPrompt)


class TextInjection(nn.Module):
    """`t = (1 + scale(p)) * GroupNorm(x) + shift(p)`, scale and shift per channel, linear in the prompt p.

    Args:
        channels: C of the noise.
        embeds_shape: (L, D) of the prompt embedding. One matrix maps all L*D numbers, so L is fixed.
    """

    def __init__(self, channels: int, embeds_shape: Sequence[int]):
        tokens, width = embeds_shape
        super().__init__()
        self.linear = nn.Linear(tokens * width, 2 * channels)

    def forward(self, noise_BCHW: Tensor, embeds_BLD: Tensor) -> Tensor:
        """Returns t, shaped as the noise."""
        scale, shift = self.linear(embeds_BLD.flatten(1))[:, :, None, None].chunk(2, dim=1)
        return F.group_norm(noise_BCHW, 1, eps=1e-6) * (1 + scale) + shift


def shorten(embeds_BLD: Tensor, tokens: int, how: LongPrompt) -> list[Tensor]:
    """Embeddings of the trained length out of longer ones; NPNet is applied to one after the other.

    Args:
        embeds_BLD: at least `tokens` tokens.
        how: `truncate` keeps the first tokens and warns once, `average` gives the mean of all chunks, `chain` every
            chunk. The last chunk ends where the prompt ends, so it may overlap the one before.

    Returns:
        One or more tensors (B, tokens, D).
    """
    length = embeds_BLD.shape[1]
    if length == tokens:
        return [embeds_BLD]
    if how == "truncate":
        _warn_truncated(length, tokens)
        return [embeds_BLD[:, :tokens]]
    starts = [min(start, length - tokens) for start in range(0, length, tokens)]
    chunks = [embeds_BLD[:, start : start + tokens] for start in starts]
    return chunks if how == "chain" else [torch.stack(chunks).mean(dim=0)]


@cache
def _warn_truncated(length: int, tokens: int) -> None:
    warnings.warn(
        f"the prompt has {length} tokens, this NPNet reads the first {tokens}: "
        "long_prompt=average or long_prompt=chain reads all of them",
        stacklevel=6,
    )
