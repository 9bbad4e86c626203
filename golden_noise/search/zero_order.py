"""Zero-order search: a walk towards noise that a verifier likes, by looking around (Ma et al., arXiv 2501.09732)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from golden_noise.errors import UserError
from golden_noise.metrics.base import Metric
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.prompt_embedding import PromptEmbedding
from golden_noise.search.judging import better, content_seeds, derived_noise, scores
from golden_noise.search.regularisers import with_norm


@dataclass(frozen=True)
class ZeroOrder:
    """Each round tries neighbours of the best noise so far, at its norm, and keeps what the verifier likes most.

    The verifier needs no gradients: any metric will do. A neighbour is noise + radius * u for standard normal u, which
    follows from the given noise, so that searching again finds the same. The result never scores below the noise. Of
    equal scores the first counts; a noise whose image is not finite is never chosen.

    Cost: (1 + rounds * neighbours) * steps denoiser calls per image, twice as many with guidance.

    Args:
        reward: the verifier; evaluate with another one.
        rounds: how often the best noise is the middle of a new round.
        neighbours: tried in a round.
        radius: of the neighbourhood; the cosine between neighbours is about 1 / sqrt(1 + radius^2), .95 for 0.33.
    """

    reward: Metric
    rounds: int = 4
    neighbours: int = 4
    radius: float = 0.33

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.neighbours < 1:
            raise UserError(f"search.rounds={self.rounds} and search.neighbours={self.neighbours} must be >= 1")
        if not 0 < self.radius < math.inf:
            raise UserError(f"search.radius={self.radius} must be above 0")

    @torch.no_grad()
    def search(self, noise: Tensor, prompt: PromptEmbedding, pipeline: Pipeline) -> Tensor:
        seeds, norm = content_seeds(noise, 0), noise.float().flatten(1).norm(dim=1)
        best, best_scores = noise, scores(self.reward, noise, prompt, pipeline, seeds)
        for i in range(self.rounds):
            middle = best.float()
            for j in range(self.neighbours):
                step = derived_noise(noise, 1 + i * self.neighbours + j).float()
                neighbour = with_norm(middle + self.radius * step, norm).to(noise)
                found = scores(self.reward, neighbour, prompt, pipeline, seeds)
                chosen = found > best_scores
                best, best_scores = better(neighbour, best, chosen), torch.where(chosen, found, best_scores)
        return best
