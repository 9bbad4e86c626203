"""`summary.csv` and `summary.html` of many trainings: what varied, and what came of it."""

import csv
import io
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from golden_noise.evaluation import verdict
from golden_noise.files import write_atomically
from golden_noise.reporting.axis import Axis
from golden_noise.reporting.page import render
from golden_noise.sweeps.runs import SEED, Run, groups, read_runs, table, varied

CURVES = {"val/explained": "share of the target's move that is predicted", "val/loss": "mean squared error"}
COLOURS = 8  # of summary.css


def summarize(folder: Path) -> None:
    """Write `summary.csv` and `summary.html` into a folder of trainings, and print the groups.

    Raises:
        UserError: there are no trainings.
    """
    runs = read_runs(folder)
    keys = varied(runs)
    rows, grouped = list(table(runs, keys, folder)), [_group(*entry) for entry in groups(runs, keys).items()]
    write_atomically(folder / "summary.csv", _csv(rows))
    html = render(
        Path(__file__).parent / "summary.html.jinja",
        title=folder.absolute().name,
        runs=rows,
        finished=sum(row["state"] == "finished" for row in rows),
        keys=keys,
        seeded=SEED in keys,
        groups=grouped,
        results=[result for result in (_result(grouped, "explained"), _result(grouped, "gain")) if result],
        gain=next((row["metric"] for row in rows if row["metric"]), None),
        curves=[curve for curve in (_curves(grouped, metric) for metric in CURVES) if curve],
        words=verdict,
    )
    write_atomically(folder / "summary.html", html)
    Console(width=max(100, Console().width)).print(_terminal(grouped))
    print(f"summary: {(folder / 'summary.html').absolute()}")


def _group(label: str, runs: Sequence[Run]) -> dict[str, Any]:
    """What runs that differ in the seed alone have in common."""
    known = [run.record for run in runs if run.record]
    return {
        "label": label,
        "runs": runs,
        "finished": len(known),
        "explained": _spread(run.explained for run in runs if run.record),
        "gain": _spread(run.gain.get("difference") for run in runs if run.record),
        "parameters": _spread(found["parameters"] for found in known),
        "forward_ms": _spread(found["forward_ms"] for found in known),
        "seconds": _spread(found["seconds"] for found in known),
    }


def _spread(values: Iterable[float | None]) -> dict[str, Any] | None:
    """Mean and standard deviation (of one value: None) of the values that there are."""
    found = [value for value in values if value is not None]
    if not found:
        return None
    return {
        "values": found,
        "mean": statistics.fmean(found),
        "deviation": statistics.stdev(found) if len(found) > 1 else None,
    }


def _result(grouped: Sequence[dict[str, Any]], name: str) -> dict[str, Any] | None:
    """A figure of every group's mean, deviation and single runs on one axis; None where nobody has the value."""
    shown = [group for group in grouped if group[name]]
    if not shown:
        return None
    values = [value for group in shown for value in group[name]["values"]]
    for group in shown:
        found = group[name]
        values += [found["mean"] + sign * (found["deviation"] or 0) for sign in (-1, 1)]
    zero = [0.0] if name == "gain" else []
    return {"name": name, "axis": Axis.over([*values, *zero]), "zero": 0 if zero else None}


def _curves(grouped: Sequence[dict[str, Any]], metric: str) -> dict[str, Any] | None:
    """Every run's curve in its group's colour, in percent of the figure."""
    found = [
        (i % COLOURS, group["label"], run.curve(metric)) for i, group in enumerate(grouped) for run in group["runs"]
    ]
    drawn = [(colour, label, curve) for colour, label, curve in found if curve]
    if not drawn:
        return None
    x = Axis.over(epoch for *_, curve in drawn for epoch, _ in curve)
    y = Axis.over(value for *_, curve in drawn for _, value in curve)
    lines = [
        {
            "colour": colour,
            "label": label,
            "points": [(x.at(epoch), round(100 - y.at(value), 2)) for epoch, value in curve],
            "last": curve[-1],
        }
        for colour, label, curve in drawn
    ]
    last = max(epoch for *_, curve in drawn for epoch, _ in curve)
    epochs = [(x.at(epoch), epoch) for epoch in range(0, last + 1, max(1, round(last / 8))) if epoch >= x.low]
    return {"metric": metric, "about": CURVES[metric], "epochs": epochs, "y": y, "lines": lines}


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _terminal(grouped: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("", "runs", "val/explained", "gain", "parameters", "ms per forward", "seconds"):
        table.add_column(heading, justify="right" if heading else "left")
    for group in grouped:
        mean = {name: group[name]["mean"] if group[name] else None for name in ("parameters", "forward_ms", "seconds")}
        table.add_row(
            Text(group["label"]),
            f"{group['finished']}/{len(group['runs'])}",
            _shown(group["explained"], verdict.plain),
            _shown(group["gain"], verdict.signed),
            *(
                "–" if value is None else f"{value:,.{digits}f}"
                for value, digits in zip(mean.values(), (0, 2, 0), strict=True)
            ),
        )
    return table


def _shown(found: dict[str, Any] | None, number: Any) -> str:
    if found is None:
        return "–"
    return number(found["mean"]) + (f" ± {found['deviation']:.3f}" if found["deviation"] is not None else "")
