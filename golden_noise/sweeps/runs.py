"""Finished and unfinished trainings, read from their folders."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from golden_noise.errors import UserError
from golden_noise.tracking import record
from golden_noise.tracking.record import without_name

SEED = "seed"
# Of run.json.
FACTS = ("parameters", "forward_ms", "forward_batch", "seconds", "epochs", "device", "threads", "ranks", "commit")


@dataclass(frozen=True)
class Run:
    """A training in its folder.

    Attributes:
        overrides: its command line, without the name.
        record: content of `run.json`; None while the run is not finished.
    """

    folder: Path
    overrides: dict[str, str]
    record: dict[str, Any] | None

    @cached_property
    def config(self) -> Any:
        """The resolved config."""
        return OmegaConf.create(yaml.safe_load((self.folder / "config.yaml").read_text("utf-8")))

    def setting(self, key: str) -> str:
        """The value of an option, as given on the command line, or else from the config."""
        if key in self.overrides:
            return self.overrides[key]
        value = OmegaConf.select(self.config, key.lstrip("+~"), default="default")
        if value is None or isinstance(value, bool):
            return {None: "null", True: "true", False: "false"}[value]
        return "default" if OmegaConf.is_config(value) else str(value)

    def curve(self, metric: str) -> list[tuple[int, float]]:
        """(epochs trained, value) of a logged metric, over all restarts; the later one for an epoch that ran twice."""
        values: dict[int, float] = {}
        for log in sorted(self.folder.glob("csv/version_*/metrics.csv"), key=lambda path: path.stat().st_mtime_ns):
            lines = [line for line in log.read_text("utf-8").splitlines(keepends=True) if line.endswith("\n")]
            rows = csv.DictReader(lines)  # without a last line that is being written
            values |= {int(row["epoch"]) + 1: float(row[metric]) for row in rows if row.get(metric)}
        return sorted(values.items())

    @property
    def explained(self) -> float | None:
        """The best val/explained, so far if the run is not finished."""
        if self.record and self.record["explained"] is not None:
            return self.record["explained"]
        return max((value for _, value in self.curve("val/explained")), default=None)

    @cached_property
    def gain(self) -> dict[str, Any]:
        """NPNet's difference to standard noise by the evaluation's first metric; empty if it was not evaluated."""
        from golden_noise.evaluation.verdict import compared  # late: a launcher does not need NumPy
        from golden_noise.generation.names import NPNET, STANDARD

        try:
            summary = json.loads((self.folder / "evaluation/results.json").read_text("utf-8"))
        except FileNotFoundError:
            return {}
        return compared(summary, next(iter(summary["methods"][STANDARD])), STANDARD, NPNET) or {}


def read_runs(folder: Path) -> list[Run]:
    """The trainings below a folder, in the order of their names."""
    folders = (path.parent for path in sorted(folder.rglob("config.yaml")) if (path.parent / "csv").is_dir())
    runs = [Run(path, _overrides(path), record.read(path)) for path in folders]
    if not runs:
        raise UserError(f"no trainings in {folder}: give the folder of a sweep, or one that holds trainings")
    return runs


def _overrides(folder: Path) -> dict[str, str]:
    path = folder / ".hydra/overrides.yaml"  # of the last command, which may have been refused
    given = (record.read(folder) or {}).get("overrides")
    if given is None:
        given = yaml.safe_load(path.read_text("utf-8")) if path.exists() else []
    pairs = (text.partition("=") for text in without_name(given or []))
    return {key: value for key, _, value in pairs}


def varied(runs: Sequence[Run]) -> list[str]:
    """The options whose values differ between runs, in the order of the command lines, the seed last."""
    keys = list(dict.fromkeys(key for run in runs for key in run.overrides))
    different = [key for key in keys if len({run.setting(key) for run in runs}) > 1]
    return sorted(different, key=lambda key: key == SEED)


def groups(runs: Sequence[Run], keys: Sequence[str]) -> Mapping[str, list[Run]]:
    """Runs that differ only in the seed, under the settings that distinguish them from the others."""
    settings = [key for key in keys if key != SEED]
    by_label: dict[str, list[Run]] = {}
    for run in runs:
        values = [run.setting(key) for key in settings]
        label = ", ".join(f"{key}={value}" for key, value in zip(settings, values, strict=True))
        by_label.setdefault((values[0] if len(values) == 1 else label) or "all runs", []).append(run)
    return by_label


def table(runs: Sequence[Run], keys: Sequence[str], folder: Path) -> Iterator[dict[str, Any]]:
    """One row per run, for `summary.csv`."""
    for run in runs:
        facts, gain = run.record or {}, run.gain
        yield {
            "run": run.folder.relative_to(folder).as_posix(),
            **{key: run.setting(key) for key in keys},
            "state": "finished" if run.record else "unfinished",
            "explained": run.explained,
            "metric": gain.get("metric"),
            "gain": gain.get("difference"),
            "gain_low": gain["ci95"][0] if gain else None,
            "gain_high": gain["ci95"][1] if gain else None,
            "pairs": gain.get("n"),
            **{name: facts.get(name) for name in FACTS},
        }
