"""The statistics of a folder of pairs as one HTML page that opens from disk without network."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from golden_noise.files import atomic_file
from golden_noise.pairs.index import ShardIndex
from golden_noise.pairs.pair import Failure
from golden_noise.pairs.stats import QUANTILES, Tried, acceptance, score_rows
from golden_noise.reporting.page import Axis, render

BINS = 40


def write_page(path: Path, folder: Path, tried: Sequence[Tried], failed: Mapping[str, Sequence[Failure]]) -> None:
    """Write the page, atomically. All text from the folder is escaped, and the page runs no script."""
    index = ShardIndex.load(folder)
    html = render(
        Path(__file__).with_suffix(".html.jinja"),
        folder=folder.name or str(folder),
        shards=len(index.shards),
        tasks=acceptance(tried),
        failed=failed,
        failures=sum(map(len, failed.values())),
        share_axis=Axis(0.0, 1.0, 0.2),
        metrics=_metrics(tried),
        quantiles=[f"{quantile:.0%}" for quantile in QUANTILES],
        config=yaml.safe_dump(index.config, sort_keys=False, allow_unicode=True),
    )
    with atomic_file(path) as file:
        file.write(html.encode("utf-8", "replace"))


def _metrics(tried: Sequence[Tried]) -> list[dict[str, Any]]:
    """Everything the page shows on each metric."""
    metrics = []
    for metric, rows in itertools.groupby(score_rows(tried), lambda row: row[0]):
        standard, golden = np.array([pair.scores[metric] for pair in tried if metric in pair.scores]).T
        scores, gains = histogram({"standard": standard, "search": golden}), histogram({"npnet": golden - standard})
        metrics.append({"name": metric, "rows": [row[1:] for row in rows], "scores": scores, "gains": gains})
    return metrics


def histogram(samples: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Bars of several samples over one axis.

    Returns:
        `axis`, `largest` (the most values in a bin) and `bars`: per sample (left, width, height) in percent.
    """
    values = np.concatenate(list(samples.values()))
    axis = Axis.over(values.tolist())
    edges = np.linspace(axis.low, axis.high, BINS + 1)
    counts = {name: np.histogram(sample, edges)[0].tolist() for name, sample in samples.items()}
    largest = max(map(max, counts.values()))
    width = round(92 / BINS, 3)  # the axis takes 92 percent of the figure
    bars = {
        name: [(axis.at(e), width, round(96 * n / largest, 2)) for e, n in zip(edges.tolist(), each, strict=False) if n]
        for name, each in counts.items()
    }
    return {"axis": axis, "largest": largest, "bars": bars}
