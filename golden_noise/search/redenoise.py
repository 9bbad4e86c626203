"""Re-denoise sampling, the paper's search (arXiv 2411.09502, section 3.1)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from golden_noise.errors import UserError
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.prompt_embedding import PromptEmbedding


@dataclass(frozen=True)
class Redenoise:
    """Denoise one step with much guidance, go back with little: the gap writes the prompt into the noise.

    Cost: 3 * rounds denoiser calls per image, with one of the two guidances at 1 and the other not at 0 or 1.

    Args:
        steps: steps of the schedule whose first step is taken; fewer steps make a larger move.
        denoising_guidance: w1 of the step down.
        inversion_guidance: w2 of the step back; with w2 = w1 the noise returns (almost) unchanged.
        rounds: how often, each round from the last one's result.
        level: "exact" goes back from T-1 to T and undoes the step down; "reference" moves between the next lower
            levels, as the published code does by mistake.
    """

    steps: int
    denoising_guidance: float = 5.5
    inversion_guidance: float = 1.0
    rounds: int = 1
    level: Literal["exact", "reference"] = "exact"

    def __post_init__(self) -> None:
        if self.level not in ("exact", "reference"):
            raise UserError(f"search.level={self.level!r} must be 'exact' or 'reference'")
        least = 2 if self.level == "exact" else 3
        if self.steps < least or self.rounds < 1:
            raise UserError(f"search.steps={self.steps} must be >= {least} and search.rounds={self.rounds} >= 1")

    @torch.no_grad()
    def search(self, noise: Tensor, prompt: PromptEmbedding, pipeline: Pipeline) -> Tensor:
        start, following, *lower = pipeline.schedule.timesteps(self.steps).tolist()
        back_from, back_to = (following, start) if self.level == "exact" else (lower[0], following)
        latents = noise.to(pipeline.device, torch.float32)
        for _ in range(self.rounds):
            prediction = pipeline.predict(latents, start, prompt, self.denoising_guidance)
            latents = pipeline.schedule.move(latents, prediction, start, following)
            prediction = pipeline.predict(latents, start, prompt, self.inversion_guidance)
            latents = pipeline.schedule.move(latents, prediction, back_from, back_to)
        return latents.to(noise)
