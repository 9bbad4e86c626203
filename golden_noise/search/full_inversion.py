"""Full inversion: sample an image, then go all the way back (NoiseRefine, arXiv 2412.03895)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from golden_noise.errors import UserError
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.prompt_embedding import PromptEmbedding
from golden_noise.search.path import SamplerPath


@dataclass(frozen=True)
class FullInversion:
    """Denoise all steps with much guidance, invert all of them with little.

    Sampled with the inversion's guidance, the result leads to about the image that the denoising's guidance drew: with
    `inversion_guidance=1`, a guided image without the cost of guidance.

    Args:
        steps: steps of the path.
        denoising_guidance: w1 on the way down.
        inversion_guidance: w2 on the way back; with w2 = w1 the noise returns, the closer the less guidance.
        refinements: accelerated fixed-point iterations of every inverse step; without any the noise loses variance.
    """

    steps: int
    denoising_guidance: float = 2.5
    inversion_guidance: float = 1.0
    refinements: int = 2

    def __post_init__(self) -> None:
        if self.steps < 1 or self.refinements < 0:
            raise UserError(f"search.steps={self.steps} must be >= 1 and search.refinements={self.refinements} >= 0")

    @torch.no_grad()
    def search(self, noise: Tensor, prompt: PromptEmbedding, pipeline: Pipeline) -> Tensor:
        path = SamplerPath.of(pipeline, prompt, self.steps)
        latents = noise.to(pipeline.device, torch.float32)
        for step in range(self.steps):
            latents = path.down(latents, step, self.denoising_guidance)
        for step in reversed(range(self.steps)):
            latents = path.up(latents, step, self.inversion_guidance, self.refinements)
        return latents.to(noise)
