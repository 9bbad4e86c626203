"""The results of an evaluation: summarised, written to files, shown as tables."""

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from golden_noise.evaluation.scores import ALL, CONTROLS, NPNET, SEARCH, STANDARD, Scores, image_path
from golden_noise.evaluation.statistics import Comparison, Estimate, PairedSample
from golden_noise.evaluation.verdict import change, compared, interval, name, plain, probability, verdict


def summarise(
    scores: Scores,
    config: dict[str, Any],
    versions: dict[str, str],
    timings: dict[str, float],
    command: str,
) -> dict[str, Any]:
    """The content of ``results.json``: plain containers only.

    ``methods[method][metric]`` holds ``n, mean, ci95`` and the same per task. ``comparisons`` lists every
    method against standard, and NPNet against the search and every control, over all items and per task, each
    with the paired ``difference`` b - a. ``kept_share[metric]`` is None where the search has no clear gain.
    """
    samples = {group: _sample(scores, group) for group in [ALL, *scores.tasks]}
    return {
        "methods": {
            method: {metric: _means(samples, (metric, method)) for metric in scores.metrics}
            for method in scores.methods
        },
        "comparisons": [
            {"metric": metric, "a": a, "b": b, "task": task}
            | _difference(sample.paired_difference((metric, a), (metric, b)))
            for metric in scores.metrics
            for a, b in _pairs(scores.methods)
            for task, sample in samples.items()
        ],
        "kept_share": {metric: _kept_share(scores, samples[ALL], metric) for metric in scores.metrics},
        "config": config,
        "versions": versions,
        "timings": timings,
        "command": command,
    }


def _sample(scores: Scores, group: str) -> PairedSample:
    positions = scores.positions(group)
    return PairedSample({(k, m): scores.values[k][m][positions] for k in scores.metrics for m in scores.methods})


def _pairs(methods: list[str]) -> list[tuple[str, str]]:
    """The (a, b) that are compared, b with a."""
    against_standard = [(STANDARD, method) for method in methods if method != STANDARD]
    rivals = [method for method in (SEARCH, *CONTROLS) if method in methods and NPNET in methods]
    return against_standard + [(rival, NPNET) for rival in rivals]


def _means(samples: dict[str, PairedSample], column: tuple[str, str]) -> dict[str, Any]:
    means = {group: _mean(sample.mean_interval(column)) for group, sample in samples.items()}
    return means.pop(ALL) | {"tasks": means}


def _mean(estimate: Estimate) -> dict[str, Any]:
    return {"n": estimate.n, "mean": estimate.mean, "ci95": [estimate.low, estimate.high]}


def _difference(comparison: Comparison) -> dict[str, Any]:
    return {
        "n": comparison.n,
        "difference": comparison.difference,
        "ci95": [comparison.low, comparison.high],
        "win_rate": comparison.win_rate,
        "p_value": comparison.p_value,
    }


def _kept_share(scores: Scores, sample: PairedSample, metric: str) -> dict[str, Any] | None:
    if not {SEARCH, NPNET} <= set(scores.methods):
        return None
    kept = sample.kept_share((metric, STANDARD), (metric, SEARCH), (metric, NPNET))
    return {"n": kept.n, "share": kept.mean, "ci95": [kept.low, kept.high]} if kept else None


def write(folder: Path, scores: Scores, summary: dict[str, Any]) -> None:
    """Write ``results.json`` and ``results.csv`` (one row per image); each appears whole or not at all."""
    write_atomically(folder / "results.csv", _csv(scores))
    text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / "results.json", text + "\n")


def _csv(scores: Scores) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["index", "prompt", "seed", "task", "method", *scores.metrics, "image"])
    for i, item in enumerate(scores.items):
        for method in scores.methods:
            values = [f"{scores.values[metric][method][i]:.7g}" for metric in scores.metrics]
            described = [item["index"], item["prompt"], item["seed"], item["task"], method]
            rows.writerow([*described, *values, image_path(method, item["index"])])
    return text.getvalue()


def write_atomically(path: Path, text: str) -> None:
    """Write UTF-8 text so that a reader, or a killed run, never sees half of it."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def print_table(summary: dict[str, Any], console: Console | None = None) -> None:
    """Show the means, the differences to standard noise and the verdict of every metric in the terminal."""
    console = console or Console()
    for metric in summary["methods"][STANDARD]:
        console.print(_table(summary, metric))
        console.print(Text(verdict(summary, metric)), end="\n\n")


def _table(summary: dict[str, Any], metric: str) -> Table:
    pairs = summary["methods"][STANDARD][metric]["n"]
    table = Table(title=Text(f"{metric}, {pairs:,} pairs"), title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("method", "mean [95 %]", "difference to standard", "win rate", "p"):
        table.add_column(Text(heading), justify="left" if heading == "method" else "right")
    for method, results in summary["methods"].items():
        entry = results[metric]
        difference = compared(summary, metric, STANDARD, method)
        shown = (
            (change(difference), f"{difference['win_rate']:.1%}", probability(difference["p_value"]))
            if difference
            else ("", "", "")
        )
        mean = f"{plain(entry['mean'])} {interval(entry['ci95'])}"
        table.add_row(*(Text(cell) for cell in (name(method), mean, *shown)))
    return table
