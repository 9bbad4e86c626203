"""Best of N: draw several noises, keep the one whose image a metric likes most."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from golden_noise.errors import UserError
from golden_noise.metrics.base import Metric
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.prompt_embedding import PromptEmbedding
from golden_noise.search.judging import better, content_seeds, derived_noise, scores


@dataclass(frozen=True)
class BestOfN:
    """The given noise or one of n - 1 others, by the score of the image that the pipeline draws from it.

    The others follow from the given noise, so that searching again finds the same. They are unrelated to it: what can
    be gained by choosing alone, not a target that a network could learn from the noise. Of equal scores the first
    counts; a noise whose image is not finite is never chosen.

    This is the random search of Ma et al. (arXiv 2501.09732). Cost: n * steps denoiser calls per image, twice as many
    with guidance.

    Args:
        reward: judge of the images; evaluate with another one.
        n: noises in all, and so images per prompt.
    """

    reward: Metric
    n: int = 8

    def __post_init__(self) -> None:
        if self.n < 1:
            raise UserError(f"search.n={self.n} must be >= 1")

    def search(self, noise: Tensor, prompt: PromptEmbedding, pipeline: Pipeline) -> Tensor:
        return self.choose(noise, prompt, pipeline, content_seeds(noise, 0))

    @torch.no_grad()
    def choose(
        self, noise: Tensor, prompt: PromptEmbedding, pipeline: Pipeline, sampler_seeds: Sequence[int]
    ) -> Tensor:
        """As `search`, if the images will be drawn with these seeds, which matter to some samplers."""
        best, best_scores = noise, scores(self.reward, noise, prompt, pipeline, sampler_seeds)
        for i in range(1, self.n):
            others = derived_noise(noise, i)
            found = scores(self.reward, others, prompt, pipeline, sampler_seeds)
            chosen = found > best_scores
            best, best_scores = better(others, best, chosen), torch.where(chosen, found, best_scores)
        return best
