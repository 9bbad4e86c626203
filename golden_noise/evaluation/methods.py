"""The noises that are compared: standard, the search's, NPNet's, three controls, and what a run adds to them.

A gain that a control shows too is not golden noise: `shuffled` tests whether the prompt matters, `random_shift` whether
the direction of the move does, `rescaled` whether the standard deviation alone explains it (regression shrinks noise).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from golden_noise.evaluation.scores import CONTROLS, NPNET, SEARCH, SHUFFLED, STANDARD
from golden_noise.images import from_pil, to_pil
from golden_noise.metrics.base import Metric
from golden_noise.noise import CANDIDATE, SHIFT, derived_seed, draw_noise, sampler_generators
from golden_noise.npnet import AnyNPNet
from golden_noise.pipelines.base import Pipeline, PromptEmbedding
from golden_noise.search.base import NoiseSearch

METHODS = (STANDARD, SEARCH, NPNET, *CONTROLS)


def shifted(noise: Tensor, golden: Tensor, seeds: list[int]) -> Tensor:
    """Noise moved in a random direction, each sample by as much as its golden noise is. All (B, C, H, W)."""
    direction = draw_noise([derived_seed(seed, SHIFT) for seed in seeds], noise.shape[1:]).to(noise)
    length = (golden - noise).flatten(1).norm(dim=1) / direction.flatten(1).norm(dim=1)
    return noise + direction * length[:, None, None, None]


def rescaled(noise: Tensor, golden: Tensor) -> Tensor:
    """Noise with the standard deviation of its golden noise, sample by sample. All (B, C, H, W)."""
    factor = golden.flatten(1).std(dim=1) / noise.flatten(1).std(dim=1)
    return noise * factor[:, None, None, None]


@dataclass(frozen=True)
class Batch:
    """What a method turns into a noise, all for the same items."""

    noise: Tensor  # (B, C, H, W) standard noise
    prompt: PromptEmbedding
    seeds: list[int]
    texts: Sequence[str]


@dataclass(frozen=True)
class BestOfN:
    """The best of `count` noises by the metric's score of their images; the first is the standard one.

    It costs `count` samplings per image, and gains on its own metric by construction.
    """

    count: int
    metric: Metric
    pipeline: Pipeline

    def __call__(self, batch: Batch) -> Tensor:
        best, best_scores = batch.noise, torch.full((len(batch.noise),), -torch.inf)
        for number in range(self.count):
            noise = batch.noise
            if number:
                seeds = [derived_seed(seed, CANDIDATE + number) for seed in batch.seeds]
                noise = draw_noise(seeds, batch.noise.shape[1:])
            images = self.pipeline.sample(batch.prompt, noise, generator=sampler_generators(batch.seeds))
            scores = self.metric.score(batch.texts, from_pil(to_pil(images)))  # in 8 bits, as they are judged later
            better = scores > best_scores
            best = torch.where(better[:, None, None, None], noise, best)
            best_scores = torch.where(better, scores, best_scores)
        return best


@dataclass(frozen=True)
class Predicted:
    """The golden noise of an NPNet."""

    npnet: AnyNPNet

    def __call__(self, batch: Batch) -> Tensor:
        return self.npnet.golden(batch.noise, batch.prompt)


class Methods:
    """Computes the starting noise of every method for a batch.

    Args:
        names: which of METHODS and `extra`.
        npnet: needed by `npnet` and the controls.
        extra: further methods by name.
    """

    def __init__(
        self,
        names: list[str],
        pipeline: Pipeline,
        search: NoiseSearch,
        npnet: AnyNPNet | None,
        extra: Mapping[str, Callable[[Batch], Tensor]] | None = None,
    ):
        self.names, self.pipeline, self.search, self.npnet = names, pipeline, search, npnet
        self.extra = extra or {}

    @torch.inference_mode()
    def noises(
        self,
        noise: Tensor,
        prompt: PromptEmbedding,
        others: PromptEmbedding,
        seeds: list[int],
        texts: Sequence[str] = (),
    ) -> dict[str, Tensor]:
        """Starting noise (B, C, H, W) float32 on the CPU for every method.

        Args:
            noise: (B, C, H, W) standard noise.
            prompt: the prompts of the batch.
            others: another prompt for every one of them, for `shuffled`.
            seeds: the seeds of the noise.
            texts: the prompts as text, for methods that judge images.
        """
        batch = Batch(noise, prompt, seeds, texts)
        compute: dict[str, Callable[[], Tensor]] = {
            STANDARD: lambda: noise,
            SEARCH: lambda: self.search.search(noise, prompt, self.pipeline),
            NPNET: lambda: golden,
            SHUFFLED: lambda: self._predict(noise, others),
            "random_shift": lambda: shifted(noise, golden, seeds),
            "rescaled": lambda: rescaled(noise, golden),
        }
        golden = self._predict(noise, prompt) if {NPNET, *CONTROLS} & {*self.names} else noise
        return {
            name: (self.extra[name](batch) if name in self.extra else compute[name]()).float().cpu()
            for name in self.names
        }

    def _predict(self, noise: Tensor, prompt: PromptEmbedding) -> Tensor:
        assert self.npnet is not None
        return self.npnet.golden(noise, prompt)
