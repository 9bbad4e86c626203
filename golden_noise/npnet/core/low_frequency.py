"""A small network that moves only the coarsest structure of the noise (as LENS, arXiv 2605.07253).

Shapes: B batch, C x H x W noise, m x m the modes that are moved, L tokens of the prompt, D the width of their
embedding, F features.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from golden_noise.errors import UserError
from golden_noise.npnet.core.options import check_choice, check_count
from golden_noise.npnet.core.sizes import cosines
from golden_noise.npnet.core.text import LONG_PROMPTS, LongPrompt, shorten


class LowFrequencyNetwork(nn.Module):
    """Golden noise = noise + D^-1 h(D noise, c): h sees and moves the lowest m x m modes of every channel.

    D is the orthonormal two-dimensional cosine transform (DCT-II), c the prompt. `h(z, c) = gain(c) z + f(z, c)`: a
    gain per mode, linear in the prompt, and a multilayer perceptron f whose features the prompt scales and shifts
    (FiLM, arXiv 1709.07871). Without the gain, f would pass the modes through fewer features than there are modes to
    shrink them, which is most of what a squared error asks for. The gain and f's last layer start at zero, so that a
    new network is exactly the identity; at its first step only they have a gradient.

    The modes of white noise are independent and standard normal at every H x W. So a network takes noise of any size
    that has m x m modes, and moves the same coefficients by the same amounts: one pattern, stretched over the image,
    and per pixel weaker in larger noise.

    LENS trains such a network on rewards. Its code was not found, so that the layers here are this project's own.

    Args:
        latent_shape: (C, H, W) of the noise; H and W only bound `modes`.
        embeds_shape: (L, D) of the prompt embedding.
        modes: m, from 1 to min(H, W).
        width: F, of all hidden layers.
        depth: number of hidden layers.
        norm_kept: scale every golden noise to the Euclidean norm of its noise, which then changes the other modes too,
            by a common factor.
        long_prompt: what to do with more than L tokens: `truncate`, `average` or `chain` (`shorten`).

    Raises:
        UserError: an option out of its range.
    """

    def __init__(
        self,
        latent_shape: Sequence[int],
        embeds_shape: Sequence[int],
        modes: int = 4,
        width: int = 64,
        depth: int = 2,
        norm_kept: bool = False,
        long_prompt: LongPrompt = "truncate",
    ):
        super().__init__()
        channels, *sides = latent_shape
        check_count("modes", modes, min(sides))
        for size in embeds_shape:
            check_count("embeds_shape", size)
        check_count("width", width)
        check_count("depth", depth)
        check_choice("long_prompt", long_prompt, LONG_PROMPTS)
        self.latent_shape, self.embeds_shape = tuple(latent_shape), tuple(embeds_shape)
        self.trained_for: dict[str, Any] = {}  # as far as a file says it, see `Saved`
        self.modes, self.norm_kept, self.long_prompt = modes, norm_kept, long_prompt
        numbers = channels * modes**2
        self.prompt = PromptPooling(embeds_shape[1], width)
        self.layers = nn.ModuleList(FiLMLayer(width if i else numbers, width, width) for i in range(depth))
        self.output, self.gain = nn.Linear(width, numbers), nn.Linear(width, numbers)
        for parameter in (*self.output.parameters(), *self.gain.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, noise: Tensor, prompt_embeds: Tensor) -> Tensor:
        """Predicts the golden noise.

        Args:
            noise: (B, C, H, W), standard normal, any floating dtype, any H and W of at least `modes`.
            prompt_embeds: (B, L, D), or longer (`long_prompt`).

        Returns:
            (B, C, H, W) in the dtype of the noise.

        Raises:
            UserError: other shapes.
        """
        self._check_shapes(noise, prompt_embeds)
        # Noise of half precision is rounded once, at the end.
        golden = noise.to(torch.promote_types(noise.dtype, torch.float32))
        for embeds in shorten(prompt_embeds, self.embeds_shape[0], self.long_prompt):
            golden = self._golden(golden, embeds)
        return golden.to(noise.dtype)

    def takes(self, latent_shape: Sequence[int]) -> bool:
        """Whether noise of this shape (C, H, W) has the channels and the modes."""
        return latent_shape[0] == self.latent_shape[0] and min(latent_shape[1:]) >= self.modes

    def _golden(self, noise_BCHW: Tensor, embeds_BLD: Tensor) -> Tensor:
        rows_mH, columns_mW = (
            cosines(n, self.modes).to(noise_BCHW.dtype).to(noise_BCHW.device) for n in noise_BCHW.shape[2:]
        )
        modes_BCmm = rows_mH @ noise_BCHW @ columns_mW.mT
        dtype = self.output.weight.dtype
        prompt_BF = self.prompt(embeds_BLD.to(dtype))
        hidden = flat = modes_BCmm.flatten(1).to(dtype)
        for layer in self.layers:
            hidden = layer(hidden, prompt_BF)
        move = self.gain(prompt_BF) * flat + self.output(hidden)
        move_BCmm = move.view_as(modes_BCmm).to(noise_BCHW.dtype)
        golden_BCHW = noise_BCHW + (rows_mH.mT @ move_BCmm @ columns_mW).to(noise_BCHW.dtype)
        return restore_norm(golden_BCHW, noise_BCHW) if self.norm_kept else golden_BCHW

    def _check_shapes(self, noise: Tensor, prompt_embeds: Tensor) -> None:
        channels, modes = self.latent_shape[0], self.modes
        if noise.ndim != 4 or not self.takes(noise.shape[1:]):
            raise UserError(
                f"noise: this NPNet needs shape (B, {channels}, H, W) with H and W of at least {modes}, "
                f"got {tuple(noise.shape)}"
            )
        (tokens, width), given = self.embeds_shape, tuple(prompt_embeds.shape)
        if len(given) != 3 or given[::2] != (len(noise), width) or given[1] < tokens:
            raise UserError(f"prompt_embeds: this NPNet needs shape {(len(noise), tokens, width)}, got {given}")


class PromptPooling(nn.Module):
    """One vector per prompt: projected tokens, averaged with weights that each head of features learns by itself.

    Tokens are normalised before: those of CLIP differ in length by a factor of 30.

    Args:
        embeds_width: D of the prompt embedding.
        width: F of the vector.
    """

    def __init__(self, embeds_width: int, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(embeds_width, elementwise_affine=False)
        self.score = nn.Linear(embeds_width, math.gcd(8, width), bias=False)  # the softmax would undo a bias
        self.value = nn.Linear(embeds_width, width)

    def forward(self, embeds_BLD: Tensor) -> Tensor:
        """(B, L, D) -> (B, F), for any L."""
        tokens_BLD = self.norm(embeds_BLD)
        weights_BLh = self.score(tokens_BLD).softmax(dim=1)
        pooled_BhD = weights_BLh.mT @ tokens_BLD
        # Averaged first and projected then: the same vector for a fraction of the work.
        values_hfD = self.value.weight.unflatten(0, (pooled_BhD.shape[1], -1))
        values_BF = torch.einsum("bhd,hfd->bhf", pooled_BhD, values_hfD).flatten(1)
        return values_BF + self.value.bias


class FiLMLayer(nn.Module):
    """`silu((1 + scale) Linear(x) + shift)`, scale and shift linear in the prompt's vector.

    Args:
        width_in: of x.
        width: of the result.
        prompt_width: of the prompt's vector.
    """

    def __init__(self, width_in: int, width: int, prompt_width: int):
        super().__init__()
        self.linear = nn.Linear(width_in, width, bias=False)  # the shift has one
        self.film = nn.Linear(prompt_width, 2 * width)

    def forward(self, x: Tensor, prompt: Tensor) -> Tensor:
        """(B, width_in) and (B, prompt_width) -> (B, width)."""
        scale, shift = self.film(prompt).chunk(2, dim=1)
        return nn.functional.silu((1 + scale) * self.linear(x) + shift)


def restore_norm(golden_BCHW: Tensor, noise_BCHW: Tensor) -> Tensor:
    """Scales each golden noise to the Euclidean norm of its noise."""
    have, want = (x.flatten(1).norm(dim=1)[:, None, None, None] for x in (golden_BCHW, noise_BCHW))
    return golden_BCHW * (want / have.clamp_min(torch.finfo(have.dtype).tiny))
