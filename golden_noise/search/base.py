"""The interface of a search."""

from typing import Protocol

from torch import Tensor

from golden_noise.pipelines.base import Pipeline, PromptEmbedding


class NoiseSearch(Protocol):
    """Finds a golden noise near a given one."""

    def search(self, noise: Tensor, prompt: PromptEmbedding, pipeline: Pipeline) -> Tensor:
        """Golden noise of the same shape (B, C, H, W) and dtype for each noise and prompt of a batch."""
        ...
