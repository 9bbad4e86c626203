"""Small folders of real shards."""

from collections.abc import Sequence
from pathlib import Path

import torch

from golden_noise.pairs import NoisePair, ShardWriter
from golden_noise.prompts import Prompt

LATENT_SHAPE = (4, 2, 2)
EMBEDS_SHAPE = (3, 5)
POOLED_SHAPE = (6,)
CONFIG = {"pipeline": {"name": "tiny", "steps": 10}, "search": {"rounds": 1}}


def make_pair(index: int, accepted: bool = True, text: str | None = None) -> NoisePair:
    """A pair that follows from its index, in values that float16 holds exactly."""
    generator = torch.Generator().manual_seed(index)
    noise, golden = torch.randn(2, *LATENT_SHAPE, generator=generator).half().float()
    embeds = torch.randn(*EMBEDS_SHAPE, generator=generator).half().float()
    pooled = torch.randn(*POOLED_SHAPE, generator=generator).half().float()
    return NoisePair(
        prompt=Prompt(index, text or f"a photo of object {index}", seed=1000 + index, tags={"task": "single"}),
        noise=noise,
        golden=golden if accepted else None,
        embeds=embeds,
        scores={"hpsv2": (0.25, 0.5 if accepted else 0.125)},
        accepted=accepted,
        search={"name": "redenoise", "rounds": 1},
        pooled=pooled,
    )


def collect(folder: Path, sizes: Sequence[int]) -> ShardWriter:
    """Per size, a shard of so many accepted pairs and a rejected one, unless finished; all prompts differ."""
    writer = ShardWriter(folder, CONFIG)
    start = 0
    for unit, size in enumerate(sizes):
        if not writer.is_finished(unit):
            accepted = [make_pair(index) for index in range(start, start + size)]
            writer.write(unit, [*accepted, make_pair(start + size, accepted=False)])
        start += size + 1
    return writer
