"""How many pairs of a folder were accepted, and their scores."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from golden_noise.pairs.index import ShardIndex
from golden_noise.pairs.pair import Failure, NoisePair
from golden_noise.pairs.reader import read_shard

ALL = "all"
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Tried:
    """A pair without its tensors, rejected or not: `scores` are (standard, golden) per metric."""

    task: str
    accepted: bool
    scores: dict[str, tuple[float, float]]


def read_tried(folder: Path) -> list[Tried]:
    """Every pair of a folder, read with a progress bar.

    Raises:
        UserError: there is no index, or a shard is damaged.
    """
    index = ShardIndex.load(folder)
    tried = []
    with tqdm(desc="reading", total=sum(shard.bytes for shard in index.shards), unit="B", unit_scale=True) as bar:
        for shard in index.shards:
            for sample in read_shard(folder, shard, rejected=True):
                pair = NoisePair.from_sample(sample)
                tried.append(Tried(pair.prompt.tags.get("task", "none"), pair.accepted, pair.scores))
            bar.update(shard.bytes)
    return tried


def failures(folder: Path) -> dict[str, list[Failure]]:
    """The recorded failures of a folder by their reason, the most frequent first."""
    by_reason: dict[str, list[Failure]] = {}
    for failure in (failure for shard in ShardIndex.load(folder).shards for failure in shard.failures):
        by_reason.setdefault(failure.reason, []).append(failure)
    return dict(sorted(by_reason.items(), key=lambda item: -len(item[1])))


def failure_table(failed: Mapping[str, Sequence[Failure]]) -> Table:
    """A row for each reason, with the first prompt that failed for it."""
    table = _table("failed prompts", ["reason", "first prompt"], ["prompts"])
    for reason, failures in failed.items():
        table.add_row(Text(reason), Text(f"{failures[0].index}: {failures[0].prompt}"), f"{len(failures):,}")
    return table


def acceptance(tried: Sequence[Tried]) -> dict[str, tuple[int, int]]:
    """(tried, accepted) pairs per task, and of all."""
    return {task: (len(part), sum(pair.accepted for pair in part)) for task, part in _by_task(tried)}


def score_rows(tried: Sequence[Tried]) -> Iterator[tuple[str, str, str, int, list[float]]]:
    """(metric, task, side, pairs, [mean, *quantiles]) of the standard score, the golden one, and the gain.

    The gain is golden - standard, its quantiles are over pairs. Rejected pairs count: their scores are kept.
    """
    for metric in sorted({metric for pair in tried for metric in pair.scores}):
        for task, part in _by_task(tried):
            scores = np.array([pair.scores[metric] for pair in part if metric in pair.scores])
            if len(scores):
                standard, golden = scores.T
                for side, values in (("standard", standard), ("golden", golden), ("gain", golden - standard)):
                    yield metric, task, side, len(values), [values.mean(), *np.quantile(values, QUANTILES)]


def acceptance_table(tried: Sequence[Tried]) -> Table:
    """How many pairs of each task were kept."""
    table = _table("pairs", ["task"], ["tried", "accepted", "share"])
    for task, (total, kept) in acceptance(tried).items():
        table.add_row(Text(task), f"{total:,}", f"{kept:,}", f"{kept / total:.1%}" if total else "-")
    return table


def score_tables(tried: Sequence[Tried]) -> Iterator[Table]:
    """For each metric, means and quantiles by task: of both sides, and of the gain."""
    for metric, rows in itertools.groupby(score_rows(tried), lambda row: row[0]):
        table = _table(metric, ["task", "score"], ["pairs", "mean", *(f"{quantile:.0%}" for quantile in QUANTILES)])
        for _, task, side, count, values in rows:
            table.add_row(Text(task), side, f"{count:,}", *(f"{value:.4g}" for value in values))
        yield table


def _by_task(tried: Sequence[Tried]) -> Iterator[tuple[str, list[Tried]]]:
    yield ALL, list(tried)
    tasks = sorted({pair.task for pair in tried})
    for task in tasks if len(tasks) > 1 else ():
        yield task, [pair for pair in tried if pair.task == task]


def _table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD)
    for heading in (*left, *right):
        table.add_column(heading, justify="right" if heading in right else "left")
    return table
