"""Zigzag: round trips along the path, as in Z-Sampling (arXiv 2412.10891), brought back to the start."""

from dataclasses import dataclass

import torch
from torch import Tensor

from golden_noise.errors import UserError
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.path import SamplerPath
from golden_noise.pipelines.prompt_embedding import PromptEmbedding


@dataclass(frozen=True)
class Zigzag:
    """At each of the first steps: down, up, and down again to the next; then all the way back to the start.

    Cost in denoiser calls per image, for n steps that get a round trip: 2 n guided steps down (two calls each) and
    2 n (1 + refinements) calls back, twice as many with guidance.

    Args:
        steps: steps of the path.
        ratio: share of the steps that get a round trip, in (0, 1]; at least one step does.
        denoising_guidance: w1 of every step down.
        inversion_guidance: w2 of every step back; with w2 = w1 the noise returns (almost) unchanged.
        refinements: accelerated fixed-point iterations of every inverse step.
    """

    steps: int
    ratio: float = 0.3
    denoising_guidance: float = 5.5
    inversion_guidance: float = 1.0
    refinements: int = 2

    def __post_init__(self) -> None:
        if self.steps < 1 or self.refinements < 0:
            raise UserError(f"search.steps={self.steps} must be >= 1 and search.refinements={self.refinements} >= 0")
        if not 0 < self.ratio <= 1:
            raise UserError(f"search.ratio={self.ratio} must be above 0 and at most 1")

    @torch.no_grad()
    def search(self, noise: Tensor, prompt: PromptEmbedding, pipeline: Pipeline) -> Tensor:
        path = SamplerPath.of(pipeline, prompt, self.steps)
        latents = noise.to(pipeline.device, torch.float32)
        turns = range(max(1, round(self.ratio * self.steps)))
        for step in turns:
            below = path.down(latents, step, self.denoising_guidance)
            latents = path.up(below, step, self.inversion_guidance, self.refinements)
            latents = path.down(latents, step, self.denoising_guidance)
        for step in reversed(turns):
            latents = path.up(latents, step, self.inversion_guidance, self.refinements)
        return latents.to(noise)
