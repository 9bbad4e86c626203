"""What the studies share: runs that are done once, and scores of several evaluations, paired by prompt and seed.

A study is `python -m experiments.NAME.run`, from the top of the repository. Killed, it goes on where it was; what is
finished lies under `outputs/`. With `--smoke` it runs through on a handful of prompts, in a place of its own.
"""

import csv
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from golden_noise.evaluation.statistics import Comparison, PairedSample

SMOKE = "--smoke" in sys.argv
OUTPUTS = Path("outputs/smoke" if SMOKE else "outputs")
SEEDS = (1, 2) if SMOKE else (1, 2, 3)  # of every training
PAIRS = 64 if SMOKE else 2000  # held-out pairs of every evaluation

Scores = dict[tuple[str, str], float]  # by prompt and seed


def run(script: str, *overrides: str) -> None:
    small = ["pipeline.recipe.batch_size=8", "collection.batch_size=16"] if SMOKE and script != "evaluate.py" else []
    subprocess.run([sys.executable, script, f"paths.outputs={OUTPUTS}", *small, *overrides], check=True)


@dataclass(frozen=True)
class Pairs:
    """A set of pairs by name, and what it is collected with; the first training on it collects it."""

    name: str
    count: int
    overrides: tuple[str, ...] = ()

    @property
    def options(self) -> list[str]:
        count = min(self.count, 200) if SMOKE else self.count
        return [f"data_dir={OUTPUTS}/pairs/{self.name}", f"prompts.count={count}", *self.overrides]


def trained(name: str, pairs: Pairs, seed: int, *overrides: str) -> Path:
    """The NPNet of a training on a set of pairs."""
    folder = OUTPUTS / "train" / name / str(seed)
    if not (folder / "run.json").exists():
        options = ["evaluate=false", "sample_every_n_epochs=0", "logger=csv", f"seed={seed}", *pairs.options]
        limit = ["pipeline.recipe.epochs=1"] if SMOKE else []
        run("train.py", f"name={name}/{seed}", f"folder={folder}", *options, *overrides, *limit)
    return folder / "npnet/best"


def evaluated(name: str, *overrides: str, networks: Mapping[str, Path] | None = None) -> Path:
    """The folder of an evaluation on the held-out prompts, with further networks by name."""
    folder = OUTPUTS / "evaluate" / name
    if not (folder / "results.json").exists():
        checkpoints = [f"+evaluation.checkpoints.{network}={source}" for network, source in (networks or {}).items()]
        count = [] if any(o.startswith("prompts") for o in overrides) else [f"prompts.count={PAIRS}"]
        run("evaluate.py", f"name={name}", f"folder={folder}", "logger=csv", *count, *checkpoints, *overrides)
    return folder


def scores(evaluation: Path, method: str, metric: str = "strict") -> Scores:
    """A method's scores."""
    with (evaluation / "results.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == method]
    return {(row["prompt"], row["seed"]): float(row[metric]) for row in rows}


def gain(a: Scores, b: Scores) -> Comparison:
    """How b compares with a on the same prompts and seeds, with intervals over prompts."""
    assert a.keys() == b.keys(), "two evaluations of other prompts"
    columns = {name: np.array([side[key] for key in a]) for name, side in (("a", a), ("b", b))}
    return PairedSample(columns, units=[prompt for prompt, _ in a]).paired_difference("a", "b")


def mean(values: Scores) -> float:
    return float(np.mean(list(values.values())))


def interval(found: Comparison) -> str:
    return f"{found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def tabulate(study: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Write a study's results.csv and print its Markdown table."""
    folder = OUTPUTS if SMOKE else Path(study).parent
    with (folder / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    print(f"| {' | '.join(rows[0])} |\n{'| --- ' * len(rows[0])}|")
    for row in rows:
        print(f"| {' | '.join(map(str, row.values()))} |")
