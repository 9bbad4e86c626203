"""Best of N: draw several noises, keep the one whose image a metric likes most."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from golden_noise.errors import UserError
from golden_noise.metrics.base import Metric
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.prompt_embedding import PromptEmbedding
from golden_noise.search.base import NoiseSearch
from golden_noise.search.judging import better, check_start, content_seeds, derived_noise, scores


@dataclass(frozen=True)
class BestOfN:
    """The given noise or one of n - 1 others, by the score of the image that the pipeline draws from it.

    The others follow from the given noise, so that searching again finds the same. They are unrelated to it: what can
    be gained by choosing alone, not a target that a network could learn from the noise. Of equal scores the first
    counts; a noise whose image is not finite is never chosen.

    This is the random search of Ma et al. (arXiv 2501.09732). With `preview_steps` the judge sees what the image is
    predicted to be after that many steps of the deterministic sampler.

    Cost: n * steps denoiser calls per image, or n * preview_steps, twice as many with guidance, and n times `start`'s.

    Args:
        reward: judge of the images; evaluate with another one.
        n: noises in all, and so images per prompt.
        preview_steps: of the pipeline's steps, before the judge looks; None: all.
        start: another search, whose results are chosen among: such as a network's golden noises.

    Raises:
        UserError: n or preview_steps below 1, or a start that is no search.
    """

    reward: Metric
    n: int = 8
    preview_steps: int | None = None
    start: NoiseSearch | None = None

    def __post_init__(self) -> None:
        if self.n < 1:
            raise UserError(f"search.n={self.n} must be >= 1")
        if self.preview_steps is not None and not (isinstance(self.preview_steps, int) and self.preview_steps >= 1):
            raise UserError(f"search.preview_steps={self.preview_steps} must be null or an integer >= 1")
        check_start(self.start)

    def search(self, noise: Tensor, prompt: PromptEmbedding, pipeline: Pipeline) -> Tensor:
        return self.choose(noise, prompt, pipeline, content_seeds(noise, 0))

    @torch.no_grad()
    def choose(
        self, noise: Tensor, prompt: PromptEmbedding, pipeline: Pipeline, sampler_seeds: Sequence[int]
    ) -> Tensor:
        """As `search`, if the images will be drawn with these seeds, which matter to some samplers."""
        best = self._started(noise, prompt, pipeline)
        best_scores = scores(self.reward, best, prompt, pipeline, sampler_seeds, self.preview_steps)
        for i in range(1, self.n):
            others = self._started(derived_noise(noise, i), prompt, pipeline)
            found = scores(self.reward, others, prompt, pipeline, sampler_seeds, self.preview_steps)
            chosen = found > best_scores
            best, best_scores = better(others, best, chosen), torch.where(chosen, found, best_scores)
        return best

    def _started(self, noise: Tensor, prompt: PromptEmbedding, pipeline: Pipeline) -> Tensor:
        return noise if self.start is None else self.start.search(noise, prompt, pipeline).to(noise)
