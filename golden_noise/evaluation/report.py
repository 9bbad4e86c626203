"""``report.html``: the results of an evaluation in one file that opens without network."""

import base64
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from golden_noise.evaluation import verdict
from golden_noise.evaluation.gallery import OpenImage, gallery
from golden_noise.evaluation.gaussianity import expected
from golden_noise.evaluation.scores import ALL, Scores
from golden_noise.files import write_atomically
from golden_noise.generation.names import NPNET, SEARCH, STANDARD
from golden_noise.reporting.page import Axis, render

HERE = Path(__file__).parent


def write_report(folder: Path, scores: Scores, summary: dict[str, Any], images: OpenImage) -> None:
    """Write ``report.html`` into ``folder``, atomically.

    ``images(method, i)`` gives the image of ``scores.items[i]``; thumbnails of the gallery's pairs are embedded. All
    text from outside (prompts, tasks, config) is escaped, and the page's policy runs its own script and no other.
    """
    script = (HERE / "report.js").read_text("utf-8")
    html = render(
        HERE / "report.html.jinja",
        pairs=len(scores.items),
        extent=verdict.extent(summary["methods"][STANDARD][scores.metrics[0]]),
        methods=scores.methods,
        tasks=scores.tasks,
        subject=scores.subject,
        metrics=[_metric(scores, summary, metric) for metric in scores.metrics],
        overview=_overview(scores, summary),
        diversity={
            space: entry | {"axis": _axis_of(entry["differences"].values())}
            for space, entry in summary["diversity"].items()
        },
        noise=_noise(summary),
        shown=[method for method in scores.shown if method != STANDARD],
        cards=gallery(scores, images),
        config=yaml.safe_dump(summary["config"], sort_keys=False, allow_unicode=True),
        summary=summary,
        words=verdict,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    write_atomically(folder / "report.html", html)


def _metric(scores: Scores, summary: dict[str, Any], metric: str) -> dict[str, Any]:
    """Everything the page shows on one metric."""
    tested = scores.subject
    comparisons = [each for each in summary["comparisons"] if each["metric"] == metric]
    whole = [each for each in comparisons if each["task"] == ALL]
    differences = {each["b"]: each for each in whole if each["a"] == STANDARD}
    rivals = {each["a"]: each for each in whole if each["a"] != STANDARD}
    changes = {each["task"]: each for each in comparisons if each["a"] == STANDARD and each["b"] == tested}
    changes.pop(ALL, None)
    shown = [method for method in dict.fromkeys((STANDARD, SEARCH, NPNET, tested)) if method in scores.methods]
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
        "difference_axis": _axis_of(differences.values()),
        "rivals": rivals,
        "rival_axis": _axis_of(rivals.values()),
        "tasks": tasks,
        "changes": changes,
        "change_axis": _axis_of(changes.values()),
        "bars": is_rate,
        "task_axis": Axis.over([0.0, 1.0] if is_rate else means),
        "comparisons": comparisons,
    }


def _axis_of(intervals: Iterable[dict[str, Any]]) -> Axis:
    return Axis.over([0.0, *(end for entry in intervals for end in entry["ci95"])])


def _overview(scores: Scores, summary: dict[str, Any]) -> dict[str, Any]:
    """The tested method's effect by every metric in standard deviations, the scale they share."""
    tested, rows = scores.subject, {}
    for metric in scores.metrics:
        gain = verdict.compared(summary, metric, STANDARD, tested) if tested else None
        if gain and gain["effect_size"] is not None:
            spread = gain["standard_error"] * gain["units"] ** 0.5
            rows[metric] = gain | {"effect": gain["effect_size"], "ci95": [end / spread for end in gain["ci95"]]}
    return {"rows": rows, "axis": _axis_of(rows.values())}


def _noise(summary: dict[str, Any]) -> dict[str, Any]:
    """The measures of the starting noises, those of single channels apart; empty if they are not known."""
    parts: dict[str, Any] = {"whole": {}, "channels": {}} if summary["noise"] else {}
    for measure, entry in summary["noise"].items():
        parts["channels" if "channel" in measure else "whole"][measure] = entry | {"expected": expected(measure)}
    return parts
