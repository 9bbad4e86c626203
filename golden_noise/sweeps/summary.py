"""`summary.csv` and `summary.html` of many trainings: varied settings and results."""

import csv
import io
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from golden_noise.evaluation import verdict
from golden_noise.files import write_atomically
from golden_noise.reporting.page import Axis, render
from golden_noise.sweeps.runs import SEED, Run, groups, read_runs, table, varied

CURVES = {"val/explained": "share of the target's move that is predicted", "val/loss": "mean squared error"}
COLOURS = 8  # of summary.css


def summarize(folder: Path) -> None:
    """Write `summary.csv` and `summary.html` into a folder of trainings, and print the groups."""
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
    records = [run.record for run in runs if run.record]
    return {
        "label": label,
        "runs": runs,
        "finished": len(records),
        "explained": _spread(run.explained for run in runs if run.record),
        "gain": _spread(run.gain.get("difference") for run in runs if run.record),
        **{name: _spread(record[name] for record in records) for name in ("parameters", "forward_ms", "seconds")},
    }


def _spread(values: Iterable[float | None]) -> dict[str, Any] | None:
    """Mean and standard deviation (of one value: None) of the values that there are."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    deviation = statistics.stdev(known) if len(known) > 1 else None
    return {"values": known, "mean": statistics.fmean(known), "deviation": deviation}


def _result(grouped: Sequence[dict[str, Any]], name: str) -> dict[str, Any] | None:
    """A figure of every group's mean, deviation and single runs on one axis; None where nobody has the value."""
    shown = [group for group in grouped if group[name]]
    if not shown:
        return None
    values = [0.0] if name == "gain" else []
    for spread in (group[name] for group in shown):
        deviation = spread["deviation"] or 0
        values += [*spread["values"], spread["mean"] - deviation, spread["mean"] + deviation]
    return {"name": name, "axis": Axis.over(values), "zero": 0 if name == "gain" else None}


def _curves(grouped: Sequence[dict[str, Any]], metric: str) -> dict[str, Any] | None:
    """Every run's curve in its group's colour, in percent of the figure."""
    drawn = [
        (i % COLOURS, group["label"], curve)
        for i, group in enumerate(grouped)
        for run in group["runs"]
        if (curve := run.curve(metric))
    ]
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
        digits = {"parameters": 0, "forward_ms": 2, "seconds": 0}
        table.add_row(
            Text(group["label"]),
            f"{group['finished']}/{len(group['runs'])}",
            _shown(group["explained"], verdict.plain),
            _shown(group["gain"], verdict.signed),
            *(f"{group[name]['mean']:,.{n}f}" if group[name] else "–" for name, n in digits.items()),
        )
    return table


def _shown(spread: dict[str, Any] | None, number: Callable[[float], str]) -> str:
    if spread is None:
        return "–"
    return number(spread["mean"]) + (f" ± {spread['deviation']:.3f}" if spread["deviation"] is not None else "")
