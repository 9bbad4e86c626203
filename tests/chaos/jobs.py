"""The jobs that faults are injected into, on the bundled miniature, each at its smallest."""

import csv
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

NOTES = "meine Notizen ü.txt"  # of the user's own, in every folder that a job writes to
# What may differ between two undisturbed runs: times, and what is only there while a job runs.
VARYING = re.compile(
    r"(^|/)(log\.txt|run\.json|\.hydra/.*|csv/.*|wandb/.*|[^/]*\.lock|\.in-use|\.writing|\.working-on-\w+|[^/]*\.claim"
    r"|\.[^/]*\.tmp(/.*)?)$"
)
# Whose bytes hold times.
PRESENT = re.compile(r"\.ckpt$|/README\.md$")

COLLECT = ["collect.py", "search=rescale", "search.factor=0.7", "collection.select_by=null", "collection.shard_size=2",
           "collection.batch_size=2", "pipeline.steps=1", "logger=csv", "data_dir=outputs/pairs/few"]  # fmt: skip
TRAIN = ["train.py", "search=rescale", "search.factor=0.7", "collection.select_by=null", "collection.shard_size=8",
         "prompts.count=16", "recipe=shapes", "recipe.batch_size=4", "recipe.backbone_args.embed_dim=16",
         "recipe.backbone_args.depth=1", "data.val_fraction=0.3", "data.num_workers=1", "pipeline.steps=1",
         "callbacks.last.minutes=0", "trainer.log_every_n_steps=1", "name=few", "logger=csv",
         "sample_every_n_epochs=2", "evaluation.prompts.count=2", "evaluation.methods=[standard,npnet]",
         "~metric.reward"]  # fmt: skip
SHARD = "outputs/pairs/shapes-rescale/pairs-000000.tar"
EVALUATE = ["evaluate.py", "name=few", "pipeline.steps=1", "evaluation.batch_size=2", "logger=csv", "~metric.reward",
            "evaluation.methods=[standard,npnet]"]  # fmt: skip
GENERATE = ["generate.py", "name=few", "pipeline.steps=1", "batch_size=2"]
CANDIDATES = ["generate.py", "name=few", "pipeline.steps=1", "prompts=shapes_test", "prompts.count=2",
              "noise=candidates", "candidates.group=2"]  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A command, and what is there before it runs.

    Attributes:
        folder: that the command writes to, below the working directory.
        before: commands that ran earlier.
        edit: what the user did afterwards.
        precious: patterns of files of `before` that hold the user's work.
        shard: that it reads.
    """

    command: Sequence[str]
    folder: str
    before: Sequence[Sequence[str]] = ()
    edit: Callable[[Path], object] = lambda folder: None
    precious: Sequence[str] = ()
    shard: str | None = None


def fill_in_scores(folder: Path) -> None:
    """As a person would in the table of candidates."""
    path = folder / "scores.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        table.writeheader()
        table.writerows(row | {"score": f"{number + 0.5}"} for number, row in enumerate(rows))


def delete_images(folder: Path) -> None:
    """So that the job has something to do."""
    fill_in_scores(folder)
    for name in ("candidate_0", "side_by_side"):
        shutil.rmtree(folder / name)


JOBS = {
    "collect": Job([*COLLECT, "prompts.count=6"], "outputs/pairs/few"),
    "extend": Job(
        [*COLLECT, "prompts.count=6", "mode=extend"], "outputs/pairs/few", before=[[*COLLECT, "prompts.count=3"]]
    ),
    "train": Job([*TRAIN, "recipe.epochs=2"], "outputs/train/few", shard=SHARD),
    "train_on": Job(
        [*TRAIN, "recipe.epochs=2"],
        "outputs/train/few",
        before=[[*TRAIN, "recipe.epochs=1"]],
        precious=["npnet/*best*/diffusion_pytorch_model.safetensors"],
        shard=SHARD,
    ),
    "evaluate": Job([*EVALUATE, "prompts.count=4"], "outputs/evaluate/few"),
    "generate": Job([*GENERATE, "prompts=shapes_test", "prompts.count=4"], "outputs/generate/few"),
    "candidates": Job(
        CANDIDATES, "outputs/generate/few", before=[CANDIDATES], edit=delete_images, precious=["scores.csv"]
    ),
}


def content(root: Path) -> dict[str, str]:
    """What a job made and the user has below a folder: digests of the files, by name."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file() and not VARYING.search(name):
            found[name] = "" if PRESENT.search(name) else digest(path)
    return found


def digest(path: Path) -> str:
    """Of a file's content."""
    return sha256(path.read_bytes()).hexdigest()


def difference(have: dict[str, str], want: dict[str, str]) -> str:
    """What differs between two contents, in words; empty if nothing does."""
    words = [f"lacks {name}" for name in want.keys() - have.keys()]
    words += [f"has {name}" for name in have.keys() - want.keys()]
    words += [f"differs in {name}" for name in have.keys() & want.keys() if have[name] != want[name]]
    return ", ".join(sorted(words)[:5])
