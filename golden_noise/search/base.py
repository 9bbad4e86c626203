"""The interface of a search, and the DDIM move that searches are made of."""

from typing import Protocol

from torch import Tensor

from golden_noise.pipelines.base import Pipeline, PromptEmbedding


class NoiseSearch(Protocol):
    """Finds a golden noise near a given one."""

    def search(self, noise: Tensor, prompt: PromptEmbedding, pipeline: Pipeline) -> Tensor:
        """Golden noise of the same shape (B, C, H, W) and dtype for each noise and prompt of a batch."""
        ...


def ddim_move(latents: Tensor, noise: Tensor, alpha_from: Tensor, alpha_to: Tensor) -> Tensor:
    """Deterministic DDIM move between two noise levels (Song et al. 2010.02502, eq. 12 with eta = 0), either way.

    Args:
        latents: (B, C, H, W) at level `alpha_from`.
        noise: estimated noise in them, of the same shape.
        alpha_from: cumulative alpha of the level to leave.
        alpha_to: cumulative alpha of the level to reach.
    """
    clean = (latents - (1 - alpha_from).sqrt() * noise) / alpha_from.sqrt()
    return alpha_to.sqrt() * clean + (1 - alpha_to).sqrt() * noise
