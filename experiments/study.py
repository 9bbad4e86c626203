"""What the studies share: runs that are done once, and scores of several evaluations, paired by prompt and seed.

A study is `python -m experiments.NAME.run`, from the top of the repository. Killed, it goes on where it was; what is
finished lies under `outputs/`. Studies that run at the same time share their runs. With `--smoke` a study runs through
on a handful of prompts, in a place of its own.
"""

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from golden_noise.evaluation import verdict
from golden_noise.evaluation.statistics import Comparison, PairedSample
from golden_noise.noise import draw_noise
from golden_noise.npnet import checkpoint
from golden_noise.pipelines.sdxl import SDXLPipeline
from golden_noise.search.base import NoiseSearch
from golden_noise.shapes.prompts import draw_prompts

SMOKE = "--smoke" in sys.argv
OUTPUTS = Path("outputs/smoke" if SMOKE else "outputs")
SEEDS = (1, 2) if SMOKE else (1, 2, 3)  # of every training
PAIRS = 64 if SMOKE else 2000  # held-out pairs of every evaluation
ALONE = "evaluation.methods=[standard]"  # and what an evaluation adds
REDENOISE = ("search=redenoise",)  # the paper's search, with its default settings

Scores = dict[tuple[str, str], float]  # by prompt and seed


def run(script: str, *overrides: str) -> None:
    """A job on the miniature, by the preset that does best there or another one, in 10 steps unless they are given."""
    preset = [] if any(override.startswith("experiment=") for override in overrides) else ["experiment=shapes"]
    preset += ["evaluation=default"] if script != "collect.py" else []
    preset += [] if any(override.startswith("pipeline.steps=") for override in overrides) else ["pipeline.steps=10"]
    small = ["recipe.batch_size=8", "collection.batch_size=16"] if SMOKE and script != "evaluate.py" else []
    subprocess.run([sys.executable, script, f"paths.outputs={OUTPUTS}", *preset, *small, *overrides], check=True)


def once(result: Path, make: Callable[[], None]) -> None:
    """Makes a result that is not there yet; another process that wants the same one waits for it."""
    lock = result.parent.with_name(f"{result.parent.name}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        if not result.exists():
            make()


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
    options = ["evaluate=false", "sample_every_n_epochs=0", "logger=csv", f"seed={seed}", *pairs.options]
    timed = any(override.startswith("trainer.max_epochs=") for override in overrides)
    limit = ["recipe.epochs=1"] if SMOKE and not timed else []
    command = ["train.py", f"name={name}/{seed}", f"folder={folder}", *options, *overrides, *limit]
    once(folder / "run.json", lambda: run(*command))
    return folder / "npnet/best"


def identifier(text: str) -> str:
    """A name for folders and for methods of an evaluation."""
    return text.replace(", ", "_").replace("+", "_").replace(" ", "_").replace("-", "_").replace(".", "_")


def miniature(steps: int = 10, guidance: float = 1.0, height: int = 32, width: int = 32) -> SDXLPipeline:
    """The bundled pipeline on the CPU."""
    source = "package:shapes/weights/pipeline"
    return SDXLPipeline.load(source, device="cpu", height=height, width=width, steps=steps, guidance=guidance)


def about(npnet: Path) -> dict[str, Any]:
    """What a training recorded of itself: `explained`, `parameters`, `seconds` and more."""
    return json.loads((npnet.parents[1] / "run.json").read_text())


def evaluated(
    name: str,
    *overrides: str,
    networks: Mapping[str, Path] | None = None,
    searches: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """The folder of an evaluation on the held-out prompts.

    Args:
        networks: further NPNets by name.
        searches: further searches by name: which one, and its settings as `rounds=3`.
    """
    folder = OUTPUTS / "evaluate" / name
    added = [f"+evaluation.checkpoints.{network}={source}" for network, source in (networks or {}).items()]
    for search, (kind, *settings) in (searches or {}).items():
        added.append(f"+search@evaluation.searches.{search}={kind}")
        added += [f"evaluation.searches.{search}.{setting}" for setting in settings]
    count = [] if any(o.startswith("prompts") for o in overrides) else [f"prompts.count={PAIRS}"]
    command = ["evaluate.py", f"name={name}", f"folder={folder}", "logger=csv", *count, *added, *overrides]
    once(folder / "results.json", lambda: run(*command))
    return folder


def scores(evaluation: Path, method: str, metric: str = "strict") -> Scores:
    """A method's scores."""
    with (evaluation / "results.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == method]
    assert rows, f"{evaluation} has no {method}"
    return {(row["prompt"], row["seed"]): float(row[metric]) for row in rows}


@torch.inference_mode()
def explained(networks: Mapping[str, Path], search: NoiseSearch, count: int = 600) -> dict[str, float]:
    """The share of a search's move that each network predicts, on held-out prompts that are the same for all."""
    pipeline = miniature()
    loaded = {name: checkpoint.load(str(source), pipeline=pipeline) for name, source in networks.items()}
    prompts = draw_prompts("test", count, seed=5)
    noise = draw_noise([prompt.seed for prompt in prompts], pipeline.latent_shape)
    embedding = pipeline.encode([prompt.text for prompt in prompts])
    golden = search.search(noise, embedding, pipeline)
    move = (golden - noise).square().sum()
    return {
        name: float(1 - (golden - npnet.golden(noise, embedding)).square().sum() / move)
        for name, npnet in loaded.items()
    }


def averaged(several: Iterable[Scores]) -> Scores:
    """The mean over trainings, prompt by prompt and seed by seed."""
    first, *others = several
    assert all(other.keys() == first.keys() for other in others), "evaluations of other prompts"
    return {key: float(np.mean([first[key], *(other[key] for other in others)])) for key in first}


def gain(a: Scores, b: Scores) -> Comparison:
    """How b compares with a on the same prompts and seeds, with intervals over prompts."""
    assert a.keys() == b.keys(), "two evaluations of other prompts"
    columns = {name: np.array([side[key] for key in a]) for name, side in (("a", a), ("b", b))}
    return PairedSample(columns, units=[prompt for prompt, _ in a]).paired_difference("a", "b")


def mean(values: Scores) -> float:
    return float(np.mean(list(values.values())))


def interval(found: Comparison) -> str:
    return f"{verdict.signed(found.difference)} {verdict.interval([found.low, found.high], verdict.signed)}"


def each(values: Iterable[float], form: str = ".3f") -> str:
    """The same figure of every training, in the order of their seeds."""
    return " ".join(format(value, form) for value in values)


def folder_of(study: str) -> Path:
    """Where a study's results go, from its `__file__`."""
    folder = OUTPUTS / Path(study).parent.name if SMOKE else Path(study).parent
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def tabulate(study: str, rows: Sequence[Mapping[str, object]], name: str = "results") -> None:
    """Write a study's table as CSV and print it in Markdown."""
    with (folder_of(study) / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print("\n".join(markdown([list(rows[0]), *(map(str, row.values()) for row in rows)])))


def markdown(table: Sequence[Iterable[str]]) -> list[str]:
    """The lines of a table in Markdown; the first row is its head."""
    head, *body = [f"| {' | '.join(cells)} |" for cells in table]
    return [head, f"|{' --- |' * head.count(' | ')} --- |", *body]


def axes(title: str, x: str, y: str) -> Any:
    """An empty diagram in the studies' style."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    plot = pyplot.figure(figsize=(7.2, 4.2), dpi=110, layout="constrained").add_subplot()
    plot.spines[["top", "right"]].set_visible(False)
    plot.grid(alpha=0.25)
    plot.set(title=title, xlabel=x, ylabel=y)
    return plot


def save_figure(study: str, plot: Any) -> None:
    """The diagram as `figure.png` beside the table; the same figures give the same bytes."""
    plot.figure.savefig(folder_of(study) / "figure.png", metadata={"Software": None})


def spread(plot: Any, x: float, plain: Scores, found: Scores, **style: Any) -> None:
    """A point for a mean, with the interval of its difference from plain noise."""
    value, compared = mean(found), gain(plain, found)
    reach = [[compared.difference - compared.low], [compared.high - compared.difference]]
    plot.errorbar([x], [value], yerr=None if found is plain else reach, capsize=2, **style)
