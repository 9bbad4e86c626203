"""The noise times a constant: the baseline for every golden noise that is smaller than its noise."""

from dataclasses import dataclass

from torch import Tensor

from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.prompt_embedding import PromptEmbedding


@dataclass(frozen=True)
class Rescale:
    """Multiply the noise by `factor`, whatever the prompt. It costs no denoiser call."""

    factor: float

    def search(self, noise: Tensor, prompt: PromptEmbedding, pipeline: Pipeline) -> Tensor:
        return self.factor * noise
