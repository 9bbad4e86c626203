"""The noises that are compared: standard, the search's, NPNet's, four controls, and those that a run adds.

A gain that a control shows too is not golden noise: `shuffled` tests whether the prompt matters, `random_shift` whether
the direction of the move does, `rescaled` whether the standard deviation explains it (regression shrinks noise), and
`constant` (see `golden_noise.evaluation.constant`) whether one factor for all prompts does.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from golden_noise.generation.names import NETWORK_CONTROLS, NPNET, SHUFFLED, STANDARD
from golden_noise.noise import SHIFT, derived_seed, draw_noise
from golden_noise.npnet import AnyNPNet
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.calls import counting
from golden_noise.pipelines.prompt_embedding import PromptEmbedding
from golden_noise.search.base import NoiseSearch

# Noise (B, C, H, W), its prompts and its seeds -> starting noise (B, C, H, W).
Method = Callable[[Tensor, PromptEmbedding, list[int]], Tensor]
FROM_GOLDEN = (NPNET, *(control for control in NETWORK_CONTROLS if control != SHUFFLED))  # share one prediction


def predicting(network: AnyNPNet, strength: float = 1.0) -> Method:
    """The method that starts from a network's golden noise, or from some way towards it (`moved`)."""
    return lambda noise, prompt, seeds: moved(noise, network.golden(noise, prompt), strength)


def searching(search: NoiseSearch, pipeline: Pipeline) -> Method:
    """The method that starts from a search's golden noise."""
    return lambda noise, prompt, seeds: search.search(noise, prompt, pipeline)


def moved(noise: Tensor, golden: Tensor, strength: float) -> Tensor:
    """Noise moved by a share of the way to its golden noise: 0 leaves it, 1 makes it golden, 2 moves it twice as far.

    On the straight line, as the ComfyUI nodes do. Both ends are exact. All (B, C, H, W).
    """
    return torch.lerp(noise, golden.to(noise), strength)


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
class Methods:
    """Computes the starting noise of every method for a batch.

    Args:
        names: which of METHODS and `extra`.
        npnet: needed by `npnet` and the controls that are made from it.
        extra: further methods by name; `search` and `constant` are always among them.
        networks: those of `extra`, whose calls of a denoiser of their own count too.
        samplers: `steps` and `guidance` of methods that sample otherwise than the pipeline's config says.
    """

    names: list[str]
    pipeline: Pipeline
    npnet: AnyNPNet | None
    extra: Mapping[str, Method] = field(default_factory=dict)
    networks: Sequence[AnyNPNet] = ()
    samplers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @torch.no_grad()
    def noises(
        self, noise: Tensor, prompt: PromptEmbedding, others: PromptEmbedding, seeds: list[int]
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Starting noise (B, C, H, W) float32 on the CPU for every method, and its denoiser calls per image.

        Noise that serves several methods is computed once, and costs each of them as much.

        Args:
            noise: (B, C, H, W) standard noise.
            prompt: the prompts of the batch.
            others: another prompt for every one of them, for `shuffled`.
            seeds: the seeds of the noise.
        """
        compute: dict[str, Callable[[], Tensor]] = {
            STANDARD: lambda: noise,
            NPNET: lambda: golden,
            SHUFFLED: lambda: self._predict(noise, others),
            "random_shift": lambda: shifted(noise, golden, seeds),
            "rescaled": lambda: rescaled(noise, golden),
        }
        golden, of_golden = noise, 0.0
        if {NPNET, *NETWORK_CONTROLS} & {*self.names}:
            golden, of_golden = self._counted(lambda: self._predict(noise, prompt))
        noises, calls = {}, {}
        for name in self.names:
            own = self.extra.get(name)
            made = compute[name] if own is None else partial(own, noise, prompt, seeds)
            found, calls[name] = self._counted(made)
            noises[name] = found.float().cpu()
            if own is None and name in FROM_GOLDEN:
                calls[name] += of_golden
        return noises, calls

    def _counted(self, made: Callable[[], Tensor]) -> tuple[Tensor, float]:
        """A noise (B, C, H, W) and the denoiser calls per image that it took."""
        with counting(self.pipeline, self.npnet, *self.networks) as calls:
            noise = made()
        return noise, calls.total / len(noise)

    def _predict(self, noise: Tensor, prompt: PromptEmbedding) -> Tensor:
        assert self.npnet is not None
        return self.npnet.golden(noise, prompt)
