"""Noise level guidance: moves the noise where the prompt has an effect, without training (NLG, arXiv 2509.13936)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from golden_noise.errors import UserError
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.prompt_embedding import PromptEmbedding
from golden_noise.search.judging import derived_noise
from golden_noise.search.regularisers import clipped, with_norm


@dataclass(frozen=True)
class NoiseLevelGuidance:
    """Against the difference that the prompt makes to the first prediction, again and again; forward calls only.

    In each round d = prediction(prompt) - prediction(empty prompt) at the noisiest step, cut to the norm `clip`; then
    x - strength * d + sqrt(jitter) * n, brought to the norm sqrt(C H W), for standard normal n that follows from the
    given noise. Sample the result without guidance. The prediction is the noise, or the velocity of flow matching (to
    which the paper does not extend it).

    Cost: 2 * rounds denoiser calls per image.

    Args:
        steps: of the schedule whose first timestep is looked at.
        rounds: how often.
        strength: of a move.
        clip: largest norm of d.
        jitter: variance of the noise that is added in each round.
    """

    steps: int
    rounds: int = 20
    strength: float = 1.0
    clip: float = 0.5
    jitter: float = 0.001

    def __post_init__(self) -> None:
        if self.steps < 1 or self.rounds < 1:
            raise UserError(f"search.steps={self.steps} and search.rounds={self.rounds} must be >= 1")
        if not (math.isfinite(self.strength) and self.clip > 0 and 0 <= self.jitter < math.inf):
            raise UserError(
                f"search.strength={self.strength} must be finite, search.clip={self.clip} above 0 and "
                f"search.jitter={self.jitter} >= 0"
            )

    @torch.no_grad()
    def search(self, noise: Tensor, prompt: PromptEmbedding, pipeline: Pipeline) -> Tensor:
        first, size = pipeline.schedule.timesteps(self.steps)[0].item(), noise[0].numel()
        x = noise.to(pipeline.device, torch.float32)
        for i in range(self.rounds):
            difference = pipeline.predict(x, first, prompt, 1.0) - pipeline.predict(x, first, prompt, 0.0)
            fresh = derived_noise(noise, 1 + i).to(x)
            x = x - self.strength * clipped(difference, self.clip) + self.jitter**0.5 * fresh
            x = with_norm(x, size**0.5)
        return x.to(noise)
