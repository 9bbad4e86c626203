"""The results of an evaluation: summarised, written to files, shown as tables."""

import csv
import io
import json
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
from golden_noise.evaluation.verdict import (
    FEW,
    amount,
    change,
    compared,
    count,
    extent,
    name,
    plain,
    probability,
    verdict,
)
from golden_noise.files import write_atomically
from golden_noise.generation.names import CONSTANT, NPNET, SEARCH, STANDARD


def summarise(scores: Scores, config: dict[str, Any], versions: dict[str, str], command: str) -> dict[str, Any]:
    """The content of ``results.json``: plain containers only, the same for the same scores.

    - ``methods[method][metric]``: ``n, mean, standard_error, ci95`` and the same per task.
    - ``comparisons``: every method against standard, and the method under test against every other, over all items
      and per task, each with the fields of `Comparison` and ``p_holm``, the sign test's p-value corrected by Holm
      over the metrics. Nothing is corrected over methods and tasks, so more of them leave the p-values unchanged.
    - ``kept_share[metric]``: None where the search has no clear gain.
    - ``diversity[space]`` and ``noise[measure]``: ``methods`` with a mean each, and ``differences`` to standard; the
      item is the prompt for diversity.
    - ``calls[method]``: denoiser calls per image, its noise included, where they were counted.
    - ``constant``: the fields of `Constant`; empty where it was not run.
    - ``notes``: the limits of the numbers, in words.

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
        "calls": scores.calls,
        "constant": scores.constant,
        "notes": [*scores.remarks, *_notes_on_constant(scores), *_notes_on_prompts(scores), *_notes_on_scores(scores)],
        "config": config,
        "versions": versions,
        "command": command,
    }


def _sample(scores: Scores, group: str) -> PairedSample:
    positions = scores.positions(group)
    columns = {(k, m): scores.values[k][m][positions] for k in scores.metrics for m in scores.methods}
    return PairedSample(columns, _units([scores.items[i] for i in positions]))


def _units(items: list[dict[str, Any]]) -> list[str] | None:
    """The independent units: prompts, or the seeds of a single one."""
    prompts = [item["prompt"] for item in items]
    return prompts if len(set(prompts)) > 1 else None


def _pairs(scores: Scores) -> list[tuple[str, str]]:
    """The (a, b) that are compared, b with a."""
    tested, others = scores.subject, [method for method in scores.methods if method != STANDARD]
    rivals = [(method, tested) for method in others if tested and method != tested]
    return [(STANDARD, method) for method in others] + rivals


def _means(samples: dict[str, PairedSample], column: tuple[str, str]) -> dict[str, Any]:
    means = {group: _as_dict(sample.mean_interval(column)) for group, sample in samples.items()}
    return means.pop(ALL) | {"tasks": means}


def _family(sample: PairedSample, metrics: list[str], a: str, b: str, task: str) -> list[dict[str, Any]]:
    """One comparison by every metric: the family that Holm's correction is for."""
    comparisons = [sample.paired_difference((metric, a), (metric, b)) for metric in metrics]
    corrected = holm([comparison.p_value for comparison in comparisons])
    return [
        {"metric": metric, "a": a, "b": b, "task": task} | _as_dict(comparison) | {"p_holm": p}
        for metric, comparison, p in zip(metrics, comparisons, corrected, strict=True)
    ]


def _as_dict(statistic: Estimate | Comparison) -> dict[str, Any]:
    fields = asdict(statistic)
    for prefix in ("", "win_"):
        if f"{prefix}low" in fields:
            fields[f"{prefix}ci95"] = [fields.pop(f"{prefix}low"), fields.pop(f"{prefix}high")]
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
            "methods": {method: _as_dict(sample.mean_interval((name, method))) for method in methods},
            "differences": {
                method: _as_dict(sample.difference_interval((name, STANDARD), (name, method)))
                for method in methods
                if method != STANDARD
            },
        }
        for name in values
    }


def _notes_on_constant(scores: Scores) -> list[str]:
    constant = scores.constant
    if not constant:
        return []
    chosen = f"the constant is noise x {constant['factor']:g}"
    if not constant["scores"]:
        return [f"{chosen}, as given"]
    factors = [float(factor) for factor in constant["scores"]]
    best = f"the best by {constant['metric']} of {len(factors)} factors from {min(factors):g} to {max(factors):g}"
    same = "; that control is standard noise itself" if constant["factor"] == 1 else ""
    return [f"{chosen}, {best} on {count(constant['prompts'], 'other prompt')}{same}"]


def _notes_on_prompts(scores: Scores) -> list[str]:
    n, prompts = len(scores.items), _count_prompts(scores, ALL)
    if prompts == 1 and n >= FEW:
        return ["all pairs are of one prompt: intervals and tests are over its seeds and say nothing of other prompts"]
    if prompts < FEW:
        units = count(n, "pair") if prompts in (1, n) else count(prompts, "prompt")
        return [f"{units}: too few for intervals and tests, at least {FEW} are needed"]
    notes = []
    if prompts < n:
        notes.append(
            f"prompts repeat: intervals and p are over {prompts:,} prompts with all their seeds, win rates over pairs"
        )
    few = [f"{task} ({size})" for task in scores.tasks if (size := _count_prompts(scores, task)) < FEW]
    if few:
        notes.append(f"categories of fewer than {FEW} prompts, whose intervals are too narrow: {', '.join(few)}")
    return notes


def _count_prompts(scores: Scores, task: str) -> int:
    return len({scores.items[i]["prompt"] for i in scores.positions(task)})


def _notes_on_scores(scores: Scores) -> list[str]:
    notes = []
    for metric, columns in scores.values.items():
        every = np.concatenate([columns[method] for method in scores.methods])
        if every.min() == every.max():
            notes.append(f"{metric} gives every image the same score, {plain(every[0])}: it tells nothing apart")
            continue
        itself = CONSTANT if scores.constant.get("factor") == 1 else STANDARD  # has a note of its own
        others = [m for m in scores.methods if m not in (STANDARD, itself)]
        if same := ", ".join(name(m) for m in others if (columns[m] == columns[STANDARD]).all()):
            notes.append(f"{metric} scores every pair the same from standard noise and from {same}")
    return notes


def _kept_share(scores: Scores, sample: PairedSample, metric: str) -> dict[str, Any] | None:
    if not {SEARCH, NPNET} <= set(scores.methods) or sample.units < FEW:
        return None
    kept = sample.kept_share((metric, STANDARD), (metric, SEARCH), (metric, NPNET))
    return {"n": kept.n, "share": kept.mean, "ci95": [kept.low, kept.high]} if kept else None


def figures(summary: dict[str, Any]) -> dict[str, float]:
    """The means and gains of all items by name, for loggers."""
    methods, comparisons = summary["methods"].items(), summary["comparisons"]
    means = {f"eval/{k}/{method}": mean["mean"] for method, metrics in methods for k, mean in metrics.items()}
    whole = [c for c in comparisons if c["task"] == ALL]
    return means | {f"eval/{c['metric']}/{c['b']}_minus_{c['a']}": c["difference"] for c in whole}


def write(folder: Path, scores: Scores, summary: dict[str, Any]) -> None:
    """Write ``results.json`` and ``results.csv`` (one row per image); each appears whole or not at all."""
    write_atomically(folder / "results.csv", _csv(scores))
    text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(folder / "results.json", text)


def _csv(scores: Scores) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["index", "prompt", "seed", "task", "method", *scores.metrics, "image"])
    for i, item in enumerate(scores.items):
        for method in scores.methods:
            values = [f"{scores.values[metric][method][i]:.7g}" for metric in scores.metrics]
            described = [item["index"], item["prompt"], item["seed"], item["task"], method]
            rows.writerow([*described, *values, scores.files[method][i]])
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
    calls = summary.get("calls")  # earlier versions did not count them
    for heading in (*(["calls"] if calls else []), "mean", "difference [95 %]", "win rate", "p (Holm)"):
        table.add_column(Text(heading), justify="right", no_wrap=True)
    for method, results in summary["methods"].items():
        gain = _cells(compared(summary, metric, STANDARD, method))
        cost = [amount(calls.get(method))] if calls else []
        table.add_row(Text(name(method)), *cost, plain(results[metric]["mean"]), *gain)
    rivals = [c for c in summary["comparisons"] if c["task"] == ALL and c["metric"] == metric and c["a"] != STANDARD]
    if rivals:
        table.add_section()
        table.add_row(Text(f"{name(rivals[0]['b'])} minus"))
    for rival in rivals:
        table.add_row(Text(f"  {name(rival['a'])}"), *[""] * (2 if calls else 1), *_cells(rival))
    return table


def _cells(comparison: dict[str, Any] | None) -> list[Text]:
    """Difference, win rate and p-value of a comparison, if it was made."""
    if comparison is None:
        return []
    win_rate, p_value = f"{comparison['win_rate']:.1%}", probability(comparison["p_holm"])
    return [Text(change(comparison)), Text(win_rate), Text(p_value)]
