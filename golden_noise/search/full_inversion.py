"""Full inversion: sample an image, then go all the way back.

The analysis that motivates NoiseRefine (arXiv 2412.03895) inverts guided images like this. Its training does not: that
builds no such pairs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from golden_noise.errors import UserError
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.path import SamplerPath
from golden_noise.pipelines.prompt_embedding import PromptEmbedding


@dataclass(frozen=True)
class FullInversion:
    """Denoise all steps with much guidance, invert all of them with little.

    Sampled with the inversion's guidance, the result leads to about the image that the denoising's guidance drew: with
    `inversion_guidance=1`, a guided image without the cost of guidance. With fewer `back_steps` it does so in fewer
    steps too: sample it in that many ("inversion across samplers", ours).

    Cost in denoiser calls per image: `steps` on the way down, twice as many with guidance; (1 + refinements) *
    `back_steps` on the way back, twice as many with guidance.

    Args:
        steps: steps of the path down.
        back_steps: steps of the path back, None for as many.
        denoising_guidance: w1 on the way down.
        inversion_guidance: w2 on the way back; with w2 = w1 the noise returns, the closer the less guidance.
        refinements: accelerated fixed-point iterations of every inverse step; without any the noise loses variance.
    """

    steps: int
    denoising_guidance: float = 2.5
    inversion_guidance: float = 1.0
    refinements: int = 2
    back_steps: int | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or self.refinements < 0:
            raise UserError(f"search.steps={self.steps} must be >= 1 and search.refinements={self.refinements} >= 0")
        if self.back_steps is not None and self.back_steps < 1:
            raise UserError(f"search.back_steps={self.back_steps} must be >= 1, or null for as many as search.steps")

    @torch.no_grad()
    def search(self, noise: Tensor, prompt: PromptEmbedding, pipeline: Pipeline) -> Tensor:
        there = SamplerPath.of(pipeline, prompt, self.steps)
        back = SamplerPath.of(pipeline, prompt, self.back_steps or self.steps)
        latents = noise.to(pipeline.device, torch.float32)
        for step in range(there.steps):
            latents = there.down(latents, step, self.denoising_guidance)
        for step in reversed(range(back.steps)):
            latents = back.up(latents, step, self.inversion_guidance, self.refinements)
        return latents.to(noise)
