"""The path that a deterministic sampler takes for a prompt, walked step by step in both directions."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from golden_noise.pipelines.prompt_embedding import PromptEmbedding

if TYPE_CHECKING:
    from golden_noise.pipelines.base import Pipeline


@dataclass(frozen=True)
class SamplerPath:
    """The deterministic path of `pipeline` for one batch of prompts. Step i joins the levels i (noisier) and i + 1.

    Attributes:
        levels: timesteps (steps + 1,) from the noisiest to the end of the path.
    """

    pipeline: "Pipeline"
    prompt: PromptEmbedding
    levels: list[float]

    @classmethod
    def of(
        cls, pipeline: "Pipeline", prompt: PromptEmbedding, steps: int, preview_steps: int | None = None
    ) -> "SamplerPath":
        """The path of a given number of steps, or of the first of them and straight to the end."""
        return cls(pipeline, prompt, [*pipeline.schedule.timesteps(steps).tolist()[:preview_steps], 0])

    @property
    def steps(self) -> int:
        return len(self.levels) - 1

    def down(self, latents: Tensor, step: int, guidance: float) -> Tensor:
        """One denoising step of (B, C, H, W) float32 latents, as the sampler takes it."""
        start, end = self.levels[step : step + 2]
        prediction = self.pipeline.predict(latents, start, self.prompt, guidance)
        return self.pipeline.schedule.move(latents, prediction, start, end)

    def up(self, latents: Tensor, step: int, guidance: float, refinements: int = 0) -> Tensor:
        """The inverse step: the latents from which `down` would have led here.

        They solve x = f(x) for f(x) = move(latents, prediction at x). Plain inversion takes f at the lower latents;
        each refinement puts the last solution in and solves again, as a fixed-point iteration that Anderson's method
        of depth one accelerates, for each sample by itself (AIDI, arXiv 2309.04907).

        Args:
            latents: (B, C, H, W) float32 at the lower level of `step`.
            refinements: 0 is plain inversion, whose errors add up along a path.
        """
        start, end = self.levels[step : step + 2]
        solution = latents
        last: tuple[Tensor, Tensor] | None = None
        for _ in range(1 + refinements):
            prediction = self.pipeline.predict(solution, start, self.prompt, guidance)
            value = self.pipeline.schedule.move(latents, prediction, end, start)
            residual = value - solution
            solution = value
            if last is not None:
                solution = value - secant(residual, last[1]) * (value - last[0])
            last = value, residual
        return solution


def secant(residual: Tensor, last: Tensor) -> Tensor:
    """How much of the last change to take back, (B, 1, 1, 1): the least residual on the line through both.

    0 where both are equal and there is no line.
    """
    change = residual - last
    along = (residual * change).sum(dim=(1, 2, 3), keepdim=True)
    return along / change.square().sum(dim=(1, 2, 3), keepdim=True).clamp_min(torch.finfo(change.dtype).tiny)
