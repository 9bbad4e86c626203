"""What searches by a metric share: seeds that follow from the noise, and scores of its image."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from golden_noise.errors import UserError
from golden_noise.metrics.base import Metric
from golden_noise.noise import draw_noise, sampler_generators
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.overflow import are_finite
from golden_noise.pipelines.prompt_embedding import PromptEmbedding


def derived_noise(noise: Tensor, use: int) -> Tensor:
    """Standard normal noise (B, C, H, W) that follows from the given one alone, another one for every use."""
    return draw_noise(content_seeds(noise, use), noise.shape[1:]).to(noise)


def content_seeds(noise: Tensor, use: int) -> list[int]:
    """A 32-bit seed per noise that follows from its numbers, another one for every use."""
    content = noise.float().cpu().numpy()
    digests = [hashlib.sha256(x.tobytes() + use.to_bytes(4, "big")).digest() for x in content]
    return [int.from_bytes(digest[:4], "big") for digest in digests]


def scores(
    metric: Metric,
    noise: Tensor,
    prompt: PromptEmbedding,
    pipeline: Pipeline,
    sampler_seeds: Sequence[int],
    preview_steps: int | None = None,
) -> Tensor:
    """Scores (B,) on the CPU of the images that the pipeline draws from noise; -inf where one is not finite.

    Args:
        preview_steps: see `Pipeline.generate`; None: the finished images.
    """
    if preview_steps is None:
        images = pipeline.sample(prompt, noise, generator=sampler_generators(sampler_seeds))
    else:
        images = pipeline.generate(noise, prompt, preview_steps=preview_steps)
    found = metric.score(prompt.texts, images.nan_to_num())
    return found.masked_fill(~torch.tensor(are_finite(images)) | found.isnan(), -torch.inf)


def check_start(start: object) -> None:
    """Refuses what cannot be a search's start.

    Raises:
        UserError: it is no search.
    """
    if start is not None and not hasattr(start, "search"):
        raise UserError(f"search.start={start} is no search: add +search@search.start=NAME, such as full_inversion")


def better(candidates: Tensor, best: Tensor, chosen: Tensor) -> Tensor:
    """The candidates (B, C, H, W) where `chosen` (B,) is true, the best so far elsewhere."""
    return torch.where(chosen[:, None, None, None].to(best.device), candidates, best)
