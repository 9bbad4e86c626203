"""A search that a visitor watches, and may stop."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Any

from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

from golden_noise.app.choices import Choice, whole
from golden_noise.app.settings import SEARCHES
from golden_noise.app.studio import Picture, Studio
from golden_noise.errors import UserError
from golden_noise.generation.names import SEARCH, STANDARD
from golden_noise.images import to_pil
from golden_noise.metrics.base import DifferentiableMetric
from golden_noise.pipelines.calls import Calls
from golden_noise.search.base import NoiseSearch

EVERY = 0.25  # seconds between two looks


class Stopped(Exception):
    """The visitor stopped the search."""


@dataclass
class Progress:
    """How far a search is.

    Attributes:
        total: denoiser calls that search and drawing will take, as forward passes.
        done: those so far.
        seconds: since the start.
        best: the reward of the best image so far, for searches that have one.
        image: that image.
        stopped: the visitor stopped it.
        pictures: standard and found, when it is finished.
    """

    total: int
    done: int = 0
    seconds: float = 0.0
    best: float | None = None
    image: Image.Image | None = None
    stopped: bool = False
    pictures: list[Picture] = field(default_factory=list)

    def judged(self, images: Tensor, scores: Tensor) -> None:
        """Note an image (1, 3, H, W) and its reward (1,)."""
        score = scores.item()
        if images.isfinite().all() and (self.best is None or score > self.best):
            self.best, self.image = score, to_pil(images)[0]


class Watched:
    """A reward that shows what it judges."""

    def __init__(self, reward: DifferentiableMetric, seen: Callable[[Tensor, Tensor], None]):
        self.reward, self.seen = reward, seen
        self.range, self.version = reward.range, reward.version

    def score(self, prompts: Sequence[str], images: Tensor) -> Tensor:
        """See `Metric`."""
        scores = self.reward.score(prompts, images)
        self.seen(images, scores)
        return scores

    def loss(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """See `DifferentiableMetric`."""
        loss = self.reward.loss(images, prompts)
        self.seen(images.detach(), -loss.detach())
        return loss


def settings_of(studio: Studio, choice: Choice, name: str, length: Any) -> DictConfig:
    """The settings of a search that a visitor chose.

    Args:
        length: how long it is to look.

    Raises:
        UserError: a length that is none, or more denoiser calls than a visitor may ask for.
    """
    config = studio.settings.searches[name].copy()
    most = studio.settings.limits.calls
    config[SEARCHES[name]] = whole("The length of the search", length, 1, most)
    if (calls := total_calls(config, name, choice)) > most:
        raise UserError(f"This search would take {calls:,} denoiser calls, of at most {most:,}: make it shorter.")
    return config


def total_calls(config: DictConfig, name: str, choice: Choice) -> int:
    """Forward passes of the denoiser until the pictures are drawn, as the searches' docstrings count them."""
    image = choice.steps * (2 if choice.guidance > 1 else 1)
    length = config[SEARCHES[name]]
    calls = {
        "noise_level_guidance": lambda: 2 * length,
        "redenoise": lambda: 3 * length,
        "zero_order": lambda: (1 + length * config.neighbours) * image,
        "best_of_n": lambda: length * image,
        "reno": lambda: (length + 1) * image,
    }
    return calls[name]() + 2 * image


def searching(studio: Studio, choice: Choice, name: str, config: DictConfig, stop: Event) -> Iterator[Progress]:
    """Searches in a thread of its own, and says several times a second how far it is; the last one has the pictures.

    It ends when `stop` is set, and when it is no longer asked, at the next denoiser call.

    Raises:
        UserError: the search cannot be done.
    """
    progress, start = Progress(total_calls(config, name, choice)), time.monotonic()

    def watch(calls: Calls) -> None:
        if stop.is_set():
            raise Stopped
        progress.done = calls.forward

    def watched(search: Any) -> NoiseSearch:
        own = getattr(search, "reward", None)
        return search if own is None else replace(search, reward=Watched(own, progress.judged))

    def work() -> list[Picture]:
        (pictures,) = studio.draw(choice, [STANDARD, SEARCH], config, adapt=watched, watch=watch)
        return pictures

    with ThreadPoolExecutor(1, "search") as pool:
        working: Future[list[Picture]] = pool.submit(work)
        try:
            while not working.done():
                wait([working], EVERY)
                progress.seconds = time.monotonic() - start
                yield replace(progress)
            try:
                progress.pictures = working.result()
            except Stopped:
                progress.stopped = True
            yield replace(progress)
        finally:
            stop.set()  # the visitor left
