"""The interface of a search."""

from typing import Protocol

from torch import Tensor

from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.prompt_embedding import PromptEmbedding


class NoiseSearch(Protocol):
    """Finds a golden noise near a given one."""

    def search(self, noise: Tensor, prompt: PromptEmbedding, pipeline: Pipeline) -> Tensor:
        """Golden noise (B, C, H, W) for each noise and prompt of a batch, in the noise's dtype and on its device."""
        ...
