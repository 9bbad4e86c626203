"""Small folders of real shards."""

import hashlib
import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from golden_noise.pairs import NoisePair, ShardWriter
from golden_noise.prompts import Prompt

LATENT_SHAPE = (4, 2, 2)
EMBEDS_SHAPE = (3, 5)
POOLED_SHAPE = (6,)
SEARCH = {"rounds": 1}
_TIMES = itertools.count()
CONFIG = {"pipeline": {"name": "tiny", "steps": 10}, "search": SEARCH}


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
        search=SEARCH,
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


def rewrite_entry(folder: Path, shard: int = 0, **changes) -> None:
    """Change what the index says of a shard."""
    path = folder / "index.json"
    content = json.loads(path.read_text())
    content["shards"][shard] |= changes
    path.write_text(json.dumps(content))


def overwrite_shard(folder: Path, content: bytes) -> None:
    """Put other content into the first shard, at another time: two writes of a test may share a tick of the clock."""
    path = folder / "pairs-000000.tar"
    path.write_bytes(content)
    os.utime(path, ns=(0, next(_TIMES)))


def replace_shard(folder: Path, content: bytes) -> None:
    """Put other content into the first shard, with an index that vouches for it as a forger would."""
    overwrite_shard(folder, content)
    rewrite_entry(folder, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
