"""Best of N: draw several noises, keep the one whose image a metric likes most."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from golden_noise.errors import UserError
from golden_noise.metrics.base import Metric
from golden_noise.noise import draw_noise, sampler_generators
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.overflow import are_finite
from golden_noise.pipelines.prompt_embedding import PromptEmbedding


@dataclass(frozen=True)
class BestOfN:
    """The given noise or one of n - 1 others, by the score of the image that the pipeline draws from it.

    The others follow from the given noise, so that searching again finds the same. They are unrelated to it: what can
    be gained by choosing alone, not a target that a network could learn from the noise. Of equal scores the first
    counts; a noise whose image is not finite is never chosen.

    Args:
        metric: judge of the images; evaluate with another one.
        n: noises in all, and so images per prompt.
    """

    metric: Metric
    n: int = 8

    def __post_init__(self) -> None:
        if self.n < 1:
            raise UserError(f"search.n={self.n} must be >= 1")

    def search(self, noise: Tensor, prompt: PromptEmbedding, pipeline: Pipeline) -> Tensor:
        return self.choose(noise, prompt, pipeline, _seeds(noise, 0))

    @torch.no_grad()
    def choose(
        self, noise: Tensor, prompt: PromptEmbedding, pipeline: Pipeline, sampler_seeds: Sequence[int]
    ) -> Tensor:
        """As `search`, if the images will be drawn with these seeds, which matter to some samplers."""

        def score(candidates: Tensor) -> Tensor:
            images = pipeline.sample(prompt, candidates, generator=sampler_generators(sampler_seeds))
            scores = self.metric.score(prompt.texts, images.nan_to_num())
            return scores.masked_fill(~torch.tensor(are_finite(images)) | scores.isnan(), -torch.inf)

        best, best_scores = noise, score(noise)
        for i in range(1, self.n):
            others = draw_noise(_seeds(noise, i), noise.shape[1:]).to(noise)
            scores = score(others)
            better = scores > best_scores
            best = torch.where(better[:, None, None, None].to(noise.device), others, best)
            best_scores = torch.where(better, scores, best_scores)
        return best


def _seeds(noise: Tensor, use: int) -> list[int]:
    """A 32-bit seed per noise that follows from its numbers, another one for every use."""
    content = noise.float().cpu().numpy()
    digests = [hashlib.sha256(x.tobytes() + use.to_bytes(4, "big")).digest() for x in content]
    return [int.from_bytes(digest[:4], "big") for digest in digests]
