"""The image pairs in the report: their choice, thumbnails and changes."""

import base64
import io
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import Any

import numpy as np
from PIL import Image

from golden_noise.evaluation.scores import Scores
from golden_noise.generation.names import STANDARD

CARDS = 1_000  # pairs in the gallery
BYTES = 12_500_000  # of all its images together, as text
PIXEL_ART = 128  # images up to this size are kept exactly as they are if the bytes allow that for all
THUMBNAIL = 320  # the longer side of a thumbnail, at most

ROWS = 100  # of the table for loggers

OpenImage = Callable[[str, int], Image.Image]  # a method's image of the item at a position


def gallery(scores: Scores, images: OpenImage) -> list[dict[str, Any]]:
    """One card per pair, in order: the item, its images with scores, and each method's change by every metric."""
    methods = scores.shown
    positions = chosen(scores)
    wanted = [(method, i) for i in positions for method in methods]
    exact = _exact(images(method, i) for method, i in wanted)
    encoded = iter(exact or (thumbnail(images(method, i), BYTES // len(wanted)) for method, i in wanted))
    return [
        scores.items[i]
        | {
            "views": [
                {
                    "method": method,
                    "image": next(encoded),
                    "photo": exact is None,
                    "file": scores.files[method][i],
                    "scores": {metric: float(scores.values[metric][method][i]) for metric in scores.metrics},
                }
                for method in methods
            ],
            "changes": [_changes(scores, method, i) for method in methods if method != STANDARD],
        }
        for i in positions
    ]


def image_table(scores: Scores, images: OpenImage) -> tuple[list[str], Iterator[list[Any]]]:
    """A table for loggers: its columns, and a row per item with every method's image and scores."""
    methods, pairs = scores.shown, list(product(scores.metrics, scores.shown))
    facts = ["index", "task", "prompt", "seed"]
    columns = [*facts, *methods, *(f"{metric}/{method}" for metric, method in pairs)]
    rows = (
        [
            *(scores.items[i][name] for name in facts),
            *(images(method, i) for method in methods),
            *(float(scores.values[metric][method][i]) for metric, method in pairs),
        ]
        for i in chosen(scores)[:ROWS]
    )
    return columns, rows


def chosen(scores: Scores) -> list[int]:
    """All positions, or of a large set the largest gains and losses and a random sample."""
    n, tested = len(scores.items), scores.subject
    if n <= CARDS:
        return list(range(n))
    extremes = [i for sign in (1, -1) if tested for i in largest_changes(scores, tested, sign)[: CARDS // 4]]
    rest = np.random.default_rng(0).permutation(np.setdiff1d(np.arange(n), extremes))
    return sorted({*extremes, *rest[: CARDS - len(set(extremes))].tolist()})


def largest_changes(scores: Scores, method: str, sign: int) -> list[int]:
    """Positions of the items that ``method`` improves (sign 1) or worsens (sign -1), largest change first.

    The first metric decides; the others, in order, break its ties, so that among many equal steps of a 0/1
    score the clear cases come first.
    """
    changes = [sign * (scores.values[k][method] - scores.values[k][STANDARD]) for k in scores.metrics]
    order = np.lexsort([-change for change in reversed(changes)])
    return [int(i) for i in order if changes[0][i] > 0]


def _changes(scores: Scores, method: str, i: int) -> list[float]:
    changes = (scores.values[metric][method][i] - scores.values[metric][STANDARD][i] for metric in scores.metrics)
    return [float(f"{change:.6g}") for change in changes]


def _exact(images: Iterable[Image.Image]) -> list[str] | None:
    """The images unchanged; None if one of them or all together are too large, and all must shrink alike."""
    encoded, total = [], 0
    for image in images:
        if max(image.size) > PIXEL_ART or total > BYTES:
            return None
        encoded.append(_encoded(image.convert("RGB"), lossless=True, quality=50, method=2))
        total += len(encoded[-1])
    return encoded


def thumbnail(image: Image.Image, most: int) -> str:
    """A thumbnail as text of at most ``most`` characters, but not smaller than 32 pixels."""
    # A photograph takes about 0.2 characters per pixel; where one takes more, the next size down is tried.
    side = min(THUMBNAIL, max(32, int((most / 0.2) ** 0.5)))
    while True:
        small = image.convert("RGB")
        small.thumbnail((side, side))
        text = _encoded(small, quality=70, method=2)
        if len(text) <= most or side <= 32:
            return text
        side = max(32, int(side * 0.8))


def _encoded(image: Image.Image, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "webp", **options)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
