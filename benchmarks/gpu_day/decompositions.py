"""(b) Ways to decompose a batch of noises as NPNet needs it: time, and how exact the singular vectors are."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.results import Row
from benchmarks.models import shapes
from benchmarks.svd import DECOMPOSITIONS, error, on_cuda

BATCH = 64


def run(day: Day) -> None:
    shape, _ = shapes(day.tiny)
    noise = torch.randn(2 if day.tiny else BATCH, *shape, device=day.device)
    ways = DECOMPOSITIONS | (on_cuda() if day.is_cuda else {})
    for name, call in ways.items():
        day.attempt(f"{len(noise)} x {name}", partial(timed, day, f"{len(noise)} x {name}", call, noise))
    few = noise[:1]
    for name, call in ways.items():
        day.attempt(f"1 x {name}", partial(timed, day, f"1 x {name}", call, few))


def timed(day: Day, what: str, call: Callable[[Tensor], object], noise: Tensor) -> Row:
    """Time of a decomposition; a warm-up with two noises, since some take seconds for a batch."""
    call(noise[:2])
    seconds = day.seconds(lambda: call(noise), repeats=1 if len(noise) > 1 else 5, warm=0)
    few = noise[:4].cpu()
    parts = tuple(part[:4].cpu() for part in call(noise[:4]))  # type: ignore[attr-defined]
    return Row(what, 1000 * seconds, "ms", note=f"error of U {error(few, parts):.0e}")
