"""The results of an evaluation: summarised, written to files, shown as tables."""

import csv
import io
import json
from collections.abc import Hashable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from golden_noise.evaluation.scores import ALL, Scores
from golden_noise.evaluation.statistics import Comparison, Estimate, PairedSample, holm
from golden_noise.evaluation.verdict import FEW, change, compared, count, extent, name, plain, probability, verdict
from golden_noise.files import write_atomically
from golden_noise.generation.names import CONSTANT, NPNET, SEARCH, STANDARD


def summarise(
    scores: Scores,
    config: dict[str, Any],
    versions: dict[str, str],
    command: str,
) -> dict[str, Any]:
    """The content of ``results.json``: plain containers only, the same for the same scores.

    - ``methods[method][metric]``: ``n, mean, standard_error, ci95`` and the same per task.
    - ``comparisons``: every method against standard, and the method under test against every other, over all items
      and per task, each with the fields of `Comparison` and ``p_holm``, the sign test's p-value corrected by Holm.
      Its family is one comparison by every metric: a further method or task leaves the others' p-values as they are,
      and nothing is corrected over methods and tasks.
    - ``kept_share[metric]``: None where the search has no clear gain.
    - ``diversity[space]`` and ``noise[measure]``: ``methods`` with a mean each, and ``differences`` to standard; the
      item is the prompt for diversity.
    - ``constant``: the factor of the control of that name, with the metric, number of prompts and mean ``scores`` of
      every factor that chose it; empty where it was not run.
    - ``notes``: what the numbers cannot tell, in words.

    The unit of intervals and tests is the prompt with all its seeds; the seed where all items are of one prompt.
    """
    samples = {group: _sample(scores, group) for group in [ALL, *scores.tasks]}
    return {
        "methods": {
            method: {metric: _means(samples, (metric, method)) for metric in scores.metrics}
            for method in scores.methods
        },
        "comparisons": [
            comparison
            for a, b in _pairs(scores)
            for task, sample in samples.items()
            for comparison in _family(sample, scores.metrics, a, b, task)
        ],
        "kept_share": {metric: _kept_share(scores, samples[ALL], metric) for metric in scores.metrics},
        "diversity": _against_standard(scores.diversity, scores.methods),
        "noise": _against_standard(scores.noise, scores.methods, _units(scores.items)),
        "constant": scores.constant,
        "notes": notes(scores),
        "config": config,
        "versions": versions,
        "command": command,
    }


def _sample(scores: Scores, group: str) -> PairedSample:
    positions = scores.positions(group)
    values = scores.values
    columns: dict[Hashable, np.ndarray] = {
        (k, m): values[k][m][positions] for k in scores.metrics for m in scores.methods
    }
    return PairedSample(columns, _units([scores.items[i] for i in positions]))


def _units(items: list[dict[str, Any]]) -> list[str] | None:
    """What is independent: prompts, or the seeds of a single one."""
    prompts = [item["prompt"] for item in items]
    return prompts if len(set(prompts)) > 1 else None


def _pairs(scores: Scores) -> list[tuple[str, str]]:
    """The (a, b) that are compared, b with a."""
    tested = scores.subject
    against_standard = [(STANDARD, method) for method in scores.methods if method != STANDARD]
    rivals = [method for method in scores.methods if tested and method not in (STANDARD, tested)]
    return against_standard + [(rival, tested) for rival in rivals if tested]


def _means(samples: dict[str, PairedSample], column: tuple[str, str]) -> dict[str, Any]:
    means = {group: _mean(sample.mean_interval(column)) for group, sample in samples.items()}
    return means.pop(ALL) | {"tasks": means}


def _mean(estimate: Estimate) -> dict[str, Any]:
    return {
        "n": estimate.n,
        "units": estimate.units,
        "mean": estimate.mean,
        "standard_error": estimate.standard_error,
        "ci95": [estimate.low, estimate.high],
    }


def _family(sample: PairedSample, metrics: list[str], a: str, b: str, task: str) -> list[dict[str, Any]]:
    """One comparison by every metric: the family that Holm's correction is for."""
    found = [sample.paired_difference((metric, a), (metric, b)) for metric in metrics]
    corrected = holm([comparison.p_value for comparison in found])
    return [
        {"metric": metric, "a": a, "b": b, "task": task} | _difference(comparison) | {"p_holm": p}
        for metric, comparison, p in zip(metrics, found, corrected, strict=True)
    ]


def _difference(comparison: Comparison) -> dict[str, Any]:
    fields = asdict(comparison)
    fields["ci95"] = [fields.pop("low"), fields.pop("high")]
    fields["win_ci95"] = [fields.pop("win_low"), fields.pop("win_high")]
    return fields


def _against_standard(
    values: dict[str, dict[str, np.ndarray]], methods: list[str], units: list[str] | None = None
) -> dict[str, Any]:
    """Means of every method and their paired differences to standard."""
    if not values:
        return {}
    sample = PairedSample({(name, method): values[name][method] for name in values for method in methods}, units)
    return {
        name: {
            "methods": {method: _mean(sample.mean_interval((name, method))) for method in methods},
            "differences": {
                method: _mean(sample.difference_interval((name, STANDARD), (name, method)))
                for method in methods
                if method != STANDARD
            },
        }
        for name in values
    }


def notes(scores: Scores) -> list[str]:
    """What the numbers of this evaluation cannot tell."""
    return [*scores.remarks, *_notes_on_constant(scores), *_notes_on_prompts(scores), *_notes_on_scores(scores)]


def _notes_on_constant(scores: Scores) -> list[str]:
    found = scores.constant
    if not found:
        return []
    chosen = f"the constant is noise x {found['factor']:g}"
    if not found["scores"]:
        return [f"{chosen}, as given"]
    low, high = min(map(float, found["scores"])), max(map(float, found["scores"]))
    best = f"the best by {found['metric']} of {len(found['scores'])} factors from {low:g} to {high:g}"
    same = "; that control is standard noise itself" if found["factor"] == 1 else ""
    return [f"{chosen}, {best} on {count(found['prompts'], 'other prompt')}{same}"]


def _notes_on_prompts(scores: Scores) -> list[str]:
    n, prompts = len(scores.items), _count_prompts(scores, ALL)
    if prompts == 1 and n >= FEW:
        return ["all pairs are of one prompt: intervals and tests are over its seeds and say nothing of other prompts"]
    if prompts < FEW:
        units = count(n, "pair") if prompts in (1, n) else count(prompts, "prompt")
        return [f"{units}: too few for intervals and tests, at least {FEW} are needed"]
    found = []
    if prompts < n:
        found.append(
            f"prompts repeat: intervals and p are over {prompts:,} prompts with all their seeds, win rates over pairs"
        )
    few = {task: size for task in scores.tasks if (size := _count_prompts(scores, task)) < FEW}
    if few:
        listed = ", ".join(f"{task} ({size})" for task, size in few.items())
        found.append(f"categories of fewer than {FEW} prompts, whose intervals are too narrow: {listed}")
    return found


def _count_prompts(scores: Scores, task: str) -> int:
    return len({scores.items[i]["prompt"] for i in scores.positions(task)})


def _notes_on_scores(scores: Scores) -> list[str]:
    found = []
    for metric, columns in scores.values.items():
        every = np.concatenate([columns[method] for method in scores.methods])
        if every.min() == every.max():
            found.append(f"{metric} gives every image the same score, {plain(every[0])}: it tells nothing apart")
            continue
        itself = CONSTANT if scores.constant.get("factor") == 1 else STANDARD  # said already
        others = [m for m in scores.methods if m not in (STANDARD, itself)]
        same = [m for m in others if (columns[m] == columns[STANDARD]).all()]
        if same:
            found.append(
                f"{metric} scores every pair the same from standard noise and from {', '.join(map(name, same))}"
            )
    return found


def _kept_share(scores: Scores, sample: PairedSample, metric: str) -> dict[str, Any] | None:
    if not {SEARCH, NPNET} <= set(scores.methods) or sample.units < FEW:
        return None
    kept = sample.kept_share((metric, STANDARD), (metric, SEARCH), (metric, NPNET))
    return {"n": kept.n, "share": kept.mean, "ci95": [kept.low, kept.high]} if kept else None


def figures(summary: dict[str, Any]) -> dict[str, float]:
    """The means and gains of all items by name, for loggers."""
    means = {
        f"eval/{metric}/{method}": result["mean"]
        for method, metrics in summary["methods"].items()
        for metric, result in metrics.items()
    }
    gains = {
        f"eval/{c['metric']}/{c['b']}_minus_{c['a']}": c["difference"]
        for c in summary["comparisons"]
        if c["task"] == ALL
    }
    return means | gains


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
            rows.writerow([*described, *values, scores.file(method, i)])
    return text.getvalue()


def print_table(summary: dict[str, Any], console: Console | None = None) -> None:
    """Show the means, the differences to standard noise and the verdict of every metric, at 80 columns too."""
    console = console or Console()
    for metric in summary["methods"][STANDARD]:
        console.print(_table(summary, metric))
        console.print(Text(verdict(summary, metric)), end="\n\n")
    for note in summary["notes"]:
        console.print(Text(f"note: {note}"))


def _table(summary: dict[str, Any], metric: str) -> Table:
    title = Text(f"{metric}, {extent(summary['methods'][STANDARD][metric])}")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("method", overflow="fold")
    for heading in ("mean", "difference [95 %]", "win rate", "p (Holm)"):
        table.add_column(Text(heading), justify="right", no_wrap=True)
    for method, results in summary["methods"].items():
        table.add_row(Text(name(method)), plain(results[metric]["mean"]), *_cells(summary, metric, STANDARD, method))
    rivals = [c for c in summary["comparisons"] if c["task"] == ALL and c["metric"] == metric and c["a"] != STANDARD]
    for i, comparison in enumerate(rivals):
        if i == 0:
            table.add_section()
            table.add_row(Text(f"{name(comparison['b'])} minus"))
        table.add_row(
            Text(f"  {name(comparison['a'])}"), "", *_cells(summary, metric, comparison["a"], comparison["b"])
        )
    return table


def _cells(summary: dict[str, Any], metric: str, a: str, b: str) -> tuple[Text, ...]:
    """Difference, win rate and p-value of a comparison, as far as it was made."""
    found = compared(summary, metric, a, b)
    if found is None:
        return ()
    return tuple(map(Text, (change(found), f"{found['win_rate']:.1%}", probability(found["p_holm"]))))
