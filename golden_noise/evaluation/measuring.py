"""Scores and diversity of images, measured once even if the run is interrupted."""

import os
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from golden_noise import identity
from golden_noise.errors import UserError
from golden_noise.evaluation.cache import Cache
from golden_noise.evaluation.diversity import feature_distance, pixel_distance, seed_groups
from golden_noise.evaluation.scores import Scores
from golden_noise.files import is_machines
from golden_noise.images import from_pil, read_image
from golden_noise.metrics.base import EmbedsImages, Metric
from golden_noise.sharing.fabric import shared_batches

if TYPE_CHECKING:
    from golden_noise.evaluation.sources import ImageSource

KEPT_TOGETHER = 64  # distances, since each writing waits for the disk; a killed run loses fewer


class Measurement:
    """Measures the images of a source.

    Args:
        metrics: by name.
        settings: of each metric, in plain containers. A change of them, or of files that they name, makes the metric
            measure again (see `identity.scores`).
        folder: of the evaluation; its `scores.jsonl` keeps the scores.
    """

    def __init__(self, source: "ImageSource", metrics: Mapping[str, Metric], settings: Mapping[str, Any], folder: Path):
        self.source, self.metrics, self.folder = source, metrics, folder
        self.identities = {
            name: identity.digest(identity.scores(settings.get(name, {}), metric.version))
            for name, metric in metrics.items()
        }
        self.cache = Cache(folder / "scores.jsonl")
        self._digest = cache(lambda method, i: identity.file_digest(source.path(method, i)))

    def scores(self, batch_size: int) -> Scores:
        """Scores of every image, on the same items for every method and metric, and the images' diversity."""
        self.measure(batch_size)
        prompts, methods = self.source.prompts, self.source.methods
        columns: dict[str, dict[str, list[float]]] = {k: {m: [] for m in methods} for k in self.metrics}
        for start in range(0, len(prompts), batch_size):
            for method in methods:
                positions = range(start, min(start + batch_size, len(prompts)))
                for name, scores in self._batch(method, positions).items():
                    columns[name][method] += scores
        return Scores(
            items=[
                {"index": p.index, "prompt": p.text, "seed": p.seed, "task": p.tags.get("task", "")} for p in prompts
            ],
            methods=methods,
            metrics=list(self.metrics),
            values={name: {m: np.array(v) for m, v in column.items()} for name, column in columns.items()},
            files={m: [self._shown_path(m, i) for i in range(len(prompts))] for m in methods},
            diversity=self._diversity(),
        )

    def measure(self, batch_size: int, quiet: bool = False) -> None:
        """Draw and score all images, sharing the work with other processes; `quiet` hides the progress."""
        total = len(self.source.prompts)
        with tqdm(desc="evaluating", unit="image", total=total * len(self.source.methods), disable=quiet) as bar:
            for positions in shared_batches(self.folder, total, batch_size):
                self.cache.refresh()
                self.source.draw(positions)
                for method in self.source.methods:
                    self._batch(method, positions)
                    bar.update(len(positions))

    def _batch(self, method: str, positions: range) -> dict[str, list[float]]:
        """Scores of one method's batch by every metric. A batch is measured whole, so that it is always the same."""
        texts = [self.source.prompts[i].text for i in positions]
        images: list[Tensor] = []
        scores: dict[str, list[float]] = {}
        for name, metric in self.metrics.items():
            keys = [
                identity.digest("score", self.identities[name], text, self._digest(method, i))
                for text, i in zip(texts, positions, strict=True)
            ]
            known = self.cache.get(keys)
            if known is None:
                images = images or _stacks([self._open(method, i) for i in positions])
                known = _scores(metric, texts, images)
                self.cache.put(dict(zip(keys, known, strict=True)))
                known = self.cache.get(keys) or known  # without those that are not finite
            scores[name] = known
        return scores

    def _diversity(self) -> dict[str, dict[str, np.ndarray]]:
        """Mean distance between the seeds of each prompt, in pixels and as the metrics' image features see it."""
        groups = seed_groups([prompt.text for prompt in self.source.prompts])
        if not groups:
            return {}
        embedding = {name: metric for name, metric in self.metrics.items() if isinstance(metric, EmbedsImages)}
        return {
            space: {
                method: self._distances(space, embedding.get(space), method, groups) for method in self.source.methods
            }
            for space in ("pixels", *embedding)
        }

    def _distances(
        self, space: str, metric: EmbedsImages | None, method: str, groups: Sequence[list[int]]
    ) -> np.ndarray:
        """Of each group (P,)."""
        own = self.identities.get(space)
        names = [identity.digest("diversity", space, own, [self._digest(method, i) for i in each]) for each in groups]
        new: dict[str, float] = {}
        for name, group in zip(names, groups, strict=True):
            if self.cache.get([name]) is None:
                new[name] = _distance(metric, [self._open(method, i) for i in group])
                if len(new) % KEPT_TOGETHER == 0:
                    self.cache.put(new)
        self.cache.put(new)
        return np.array([(self.cache.get([name]) or [new[name]])[0] for name in names])

    def _open(self, method: str, position: int) -> Image.Image:
        path = self.source.path(method, position)
        try:
            return read_image(path)
        except (OSError, SyntaxError, ValueError) as error:
            if is_machines(error):
                raise
            raise UserError(f"cannot read {path} ({error}): delete it and rerun the same command") from error

    def _shown_path(self, method: str, position: int) -> str:
        """The image's path, relative to the evaluation's folder if it is inside."""
        path = self.source.path(method, position)
        inside = path.is_relative_to(self.folder)
        return path.relative_to(self.folder).as_posix() if inside else os.path.abspath(path)


def _distance(metric: EmbedsImages | None, images: Sequence[Image.Image]) -> float:
    """How far images of one prompt lie apart, in pixels (None) or as a metric sees them."""
    if metric is None:
        return pixel_distance(images)
    return feature_distance(torch.cat([metric.embed(stack) for stack in _stacks(images)]))


def _stacks(images: Sequence[Image.Image]) -> list[Tensor]:
    """The images as one batch, or one by one where their sizes differ."""
    return [from_pil(images)] if len({image.size for image in images}) == 1 else [from_pil([one]) for one in images]


def _scores(metric: Metric, texts: Sequence[str], stacks: Sequence[Tensor]) -> list[float]:
    rest = iter(texts)
    scores = [metric.score(list(islice(rest, len(images))), images) for images in stacks]
    return torch.cat(scores).double().tolist()
