"""``report.html``: what an evaluation found, as one file that opens from disk without network or scripts."""

import base64
import io
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from golden_noise.evaluation import verdict
from golden_noise.evaluation.results import write_atomically
from golden_noise.evaluation.scores import NPNET, SEARCH, STANDARD, Scores

GALLERY = 12  # items per gallery
PIXEL_ART = 128  # images up to this size are kept as they are, larger ones become thumbnails
THUMBNAIL = 256

ImageSource = Callable[[str, int], Image.Image]


def write_report(folder: Path, scores: Scores, summary: dict[str, Any], images: ImageSource) -> None:
    """Write ``report.html`` into ``folder``, atomically.

    ``images(method, i)`` gives the image of ``scores.items[i]``; it is called only for the items of the
    galleries, whose images are embedded. All text from outside (prompts, tasks, config) is escaped.
    """
    page = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("report.html.jinja")
    html = page.render(
        pairs=len(scores.items),
        methods=scores.methods,
        metrics=[_metric(scores, summary, metric) for metric in scores.metrics],
        galleries=_galleries(scores, images),
        config=yaml.safe_dump(summary["config"], sort_keys=False, allow_unicode=True),
        summary=summary,
        words=verdict,
    )
    write_atomically(folder / "report.html", html)


# Figures --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Axis:
    """A horizontal axis, in percent so that a figure fits any screen without scaling its text."""

    low: float
    high: float
    step: float

    @classmethod
    def over(cls, values: Iterable[float]) -> "Axis":
        """The axis from the smallest to the largest value, with about five round ticks."""
        values = list(values)
        low, high = min(values), max(values)
        if low == high:
            low, high = low - 0.5, high + 0.5
        power = 10 ** math.floor(math.log10((high - low) / 6))
        return cls(low, high, step=next(m * power for m in (1, 2, 5, 10) if m * power >= (high - low) / 6))

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Positions of the round values on the axis, with their labels."""
        decimals = max(0, -math.floor(math.log10(self.step) + 1e-9))
        first, last = math.ceil(self.low / self.step - 1e-9), math.floor(self.high / self.step + 1e-9)
        return [(self.at(k * self.step), f"{k * self.step:.{decimals}f}") for k in range(first, last + 1)]

    def at(self, value: float) -> float:
        """Position of a value in percent; a margin at both ends leaves room for the tick labels."""
        return round(4 + 92 * (value - self.low) / (self.high - self.low), 2)


def _metric(scores: Scores, summary: dict[str, Any], metric: str) -> dict[str, Any]:
    """Everything the page shows on one metric."""
    differences = {m: verdict.compared(summary, metric, STANDARD, m) for m in scores.methods if m != STANDARD}
    ends = [end for entry in differences.values() if entry for end in entry["ci95"]]
    shown = [method for method in (STANDARD, SEARCH, NPNET) if method in scores.methods]
    tasks = {
        task: {method: summary["methods"][method][metric]["tasks"][task] for method in shown} for task in scores.tasks
    }
    means = [end for entries in tasks.values() for entry in entries.values() for end in entry["ci95"]]
    # A bar must start at 0 to be read as an amount; a score on another scale is shown as a point.
    is_rate = all(0 <= end <= 1 for end in means)
    return {
        "name": metric,
        "outcome": verdict.outcome(summary, metric),
        "verdict": verdict.verdict(summary, metric),
        "means": {method: summary["methods"][method][metric] for method in scores.methods},
        "differences": differences,
        "difference_axis": Axis.over([0.0, *ends]),
        "tasks": tasks,
        "task_changes": {task: verdict.compared(summary, metric, STANDARD, NPNET, task) for task in tasks},
        "bars": is_rate,
        "task_axis": Axis.over([0.0, 1.0] if is_rate else means),
    }


# Galleries ------------------------------------------------------------------------------------------------


def _galleries(scores: Scores, images: ImageSource) -> list[dict[str, Any]]:
    """Largest gains and losses of the method under test, and a random sample."""
    tested = [m for m in (NPNET, SEARCH, *scores.methods) if m in scores.methods and m != STANDARD]
    subject = tested[0] if tested else None
    sample = np.random.default_rng(0).permutation(len(scores.items))[:GALLERY]
    chosen = [("Random sample", "drawn without regard to the scores", sorted(sample.tolist()))]
    if subject:
        for title, sign, direction in (("Largest losses", -1, "below"), ("Largest gains", 1, "above")):
            found = largest_changes(scores, subject, sign)
            share = f"in {len(found):,} of {len(scores.items):,} pairs"
            note = f"{verdict.name(subject)} is {direction} standard noise on {scores.metrics[0]} {share}"
            chosen.insert(0, (title, note, found[:GALLERY]))
    return [
        {"title": title, "note": note, "cards": [_card(scores, images, subject, i) for i in positions]}
        for title, note, positions in chosen
    ]


def largest_changes(scores: Scores, method: str, sign: int) -> list[int]:
    """Positions of the items that ``method`` improves (sign 1) or worsens (sign -1), largest change first.

    The first metric decides; the others, in order, break its ties, so that among many equal steps of a 0/1
    score the clear cases come first.
    """
    changes = [sign * (scores.values[k][method] - scores.values[k][STANDARD]) for k in scores.metrics]
    order = np.lexsort([-change for change in reversed(changes)])
    return [int(i) for i in order if changes[0][i] > 0]


def _card(scores: Scores, images: ImageSource, subject: str | None, i: int) -> dict[str, Any]:
    methods = dict.fromkeys(m for m in (STANDARD, SEARCH, subject) if m in scores.methods)
    return scores.items[i] | {
        "views": [
            {
                "method": method,
                "image": _data_uri(images(method, i)),
                "scores": {metric: float(scores.values[metric][method][i]) for metric in scores.metrics},
            }
            for method in methods
            if method
        ]
    }


def _data_uri(image: Image.Image) -> str:
    """The image as text: a small one exactly (PNG), a large one as a thumbnail to keep the report small."""
    image = image.convert("RGB")
    kind = "png" if max(image.size) <= PIXEL_ART else "webp"
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=80)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
