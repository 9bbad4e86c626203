"""What a large set costs beside its tensors: `python benchmarks/scale.py`, `--help` for the sizes.

No pair is drawn or read: an index of invented shards takes the place of a set, and sleeping threads that of collecting
processes. Prints the tables of benchmarks/README.md and checks what they rest on: that all ranks take equal steps, and
that an epoch has every pair exactly once, also if it is resumed on another number of ranks.
"""

import argparse
import multiprocessing
import os
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from golden_noise.pairs import ShardEntry, ShardIndex, ShardWriter, shard_name
from golden_noise.pairs.dataset import Batches
from golden_noise.pairs.loader import NoisePairLoader
from golden_noise.pairs.order import Hashes, deal, epoch_order, steps_per_rank, stored_order

CONFIG = {"pipeline": {"name": "benchmark"}}
BATCH, MIXED, VAL = 64, 16, 0.1


def entry(unit: int, samples: int, rng: np.random.Generator) -> ShardEntry:
    return ShardEntry(shard_name(unit), samples, 0, 0, f"{unit:064x}", rng.bytes(4 * samples), f"{unit:064x}")


def entries(pairs: int, shards: int) -> list[ShardEntry]:
    rng = np.random.default_rng(0)
    ends = np.linspace(0, pairs, shards + 1).astype(int)
    return [entry(unit, int(count), rng) for unit, count in enumerate(np.diff(ends))]


class Listed(Batches):
    """The pairs of an index, none of which is ever read."""

    def __init__(self, index: ShardIndex):
        self.index = index

    @property
    def hashes(self) -> list[Hashes]:
        return [shard.hashes for shard in self.index.shards]


def start_up(folder: Path, ranks: int) -> list[tuple[str, float, float]]:
    """(what, processor seconds, the process's most megabytes so far) of one rank's start."""
    rows, start = [("imports", time.process_time(), peak())], time.process_time()

    def note(what: str) -> None:
        nonlocal start
        rows.append((what, time.process_time() - start, peak()))
        start = time.process_time()

    index = ShardIndex.load(folder)
    note("index, read")
    index.verify()
    note("all files there with their sizes")
    dataset = Listed(index)
    loaders = [NoisePairLoader(dataset, split, VAL, BATCH, MIXED, world_size=ranks) for split in ("train", "val")]
    note("pairs of both sides")
    loaders[0].plan(epoch=1)
    note("order of an epoch")
    return rows


def peak() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()  # getrusage tells a started process its parent's
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000


def exactly_once(folder: Path, ranks: int) -> None:
    """Deals epochs to all ranks, also to fewer in the middle of one, and looks for every pair."""
    shards = ShardIndex.load(folder).shards
    stored = stored_order([shard.hashes for shard in shards], "train", VAL)
    number = np.cumsum([0, *(shard.samples for shard in shards)])
    total = sum(map(len, stored))
    fewer = ranks * 3 // 4 + 1  # divides nothing
    print("\n| ranks | steps of each | pairs left over | shards that a rank opens in an epoch | processor s |")
    print("| --- | --- | --- | --- | --- |")
    for plan in ((ranks,), (fewer,), (ranks, ranks), (ranks, fewer)):
        begun = time.process_time()
        order, seen, steps = epoch_order(stored, MIXED, 0, 1), np.zeros(number[-1], np.int8), []
        opened: set[int] = set()
        for part, world in enumerate(plan, 1):
            steps.append(steps_per_rank(len(order), "train", BATCH, world) * part // len(plan))
            for _, step in zip(range(steps[-1]), deal(order, "train", BATCH, world), strict=False):
                assert {len(batch) for batch in step} == {BATCH} and len(step) == world
                opened.update(np.unique(step[world // 3][:, 0]).tolist())
                for batch in step:
                    seen[number[batch[:, 0]] + batch[:, 1]] += 1
            order = order[steps[-1] * world * BATCH :]
        assert seen.max() == 1 and total - seen.sum() == len(order) < BATCH * plan[-1]
        resumed = ", then ".join(map(str, plan))
        taken = " + ".join(map(str, steps))
        print(f"| {resumed} | {taken} | {len(order):,} | {len(opened):,} | {time.process_time() - begun:.1f} |")


def adding(shards: list[ShardEntry]) -> None:
    print("\n| shards in the index | its size, MB | s to add one |\n| --- | --- | --- |")
    for count in [*(n for n in (100, 1000, 10_000) if n < len(shards)), len(shards)]:
        with tempfile.TemporaryDirectory() as name:
            index = ShardIndex(Path(name), CONFIG, shards[:count])
            index.save()
            size = (index.folder / "index.json").stat().st_size / 1e6
            times = [seconds(partial(index.add, shards[i % count])) for i in range(5)]
        print(f"| {count:,} | {size:.1f} | {statistics.median(times):.4f} |", flush=True)


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def work(folder: Path, units: int, pause: float, notes: list[tuple[int, list[float], int]]) -> None:
    """One collecting process: sleeps where the models would work. Notes claims tried, seconds of additions, units."""
    writer = ShardWriter(folder, CONFIG)
    tried, added = 0, []
    take = writer.claims.take

    def counted(unit: int) -> bool:
        nonlocal tried
        tried += 1
        return take(unit)

    writer.claims.take = counted  # type: ignore[method-assign]
    rng = np.random.default_rng(0)
    with writer.taking([""] * units) as taken:
        for unit in taken:
            time.sleep(random.uniform(0.5, 1.5) * pause)
            (folder / shard_name(unit)).touch()
            added.append(seconds(partial(writer.index.add, entry(unit, 1, rng))))
            writer.claims.finish(unit)
    assert [shard.unit for shard in writer.index.shards] == list(range(units))
    notes.append((tried, added, len(added)))


def some_workers(
    folder: Path, workers: int, units: int, pause: float
) -> tuple[list[tuple[int, list[float], int]], float]:
    notes: list[tuple[int, list[float], int]] = []
    threads = [threading.Thread(target=work, args=(folder, units, pause, notes)) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return notes, time.process_time()


def claims(workers: int, processes: int, units: int, pause: float) -> None:
    """Threads in several processes: each has its own files and locks, as a process of its own would."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name, ProcessPoolExecutor(processes, mp_context=context) as pool:
        list(pool.map(time.sleep, [0.1] * processes))  # they have started
        share, start = workers // processes, time.perf_counter()
        calls = [pool.submit(some_workers, Path(name), share, units, pause) for _ in range(processes)]
        results = [call.result() for call in calls]
        wall = time.perf_counter() - start
    notes = [note for found, _ in results for note in found]
    tried, added = sum(note[0] for note in notes), sorted(x for note in notes for x in note[1])
    assert len(added) == units, "a unit was done twice"
    print("\n| workers | units | s, ideal | s | claims tried per unit | s to add: median | slowest | processor s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    cells = [share * processes, f"{units:,}", f"{units * pause / workers:.0f}", f"{wall:.0f}", f"{tried / units:.1f}"]
    cells += [f"{statistics.median(added):.3f}", f"{added[-1]:.2f}", f"{sum(cpu for _, cpu in results):.0f}"]
    print(f"| {' | '.join(map(str, cells))} |")


def alone(call: Callable[..., Any], *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call, *arguments).result()


def set_of(options: argparse.Namespace, folder: Path) -> None:
    shards = entries(options.pairs, options.shards)
    adding(shards)
    ShardIndex(folder, CONFIG, shards).save()
    for shard in shards:
        (folder / shard.name).touch()
    del shards
    print(f"\n{options.pairs:,} pairs, {options.shards:,} shards, one of {options.ranks} ranks")
    print("| step | processor s | most memory, MB |\n| --- | --- | --- |")
    for what, took, most in alone(start_up, folder, options.ranks):
        print(f"| {what} | {took:.2f} | {most:,.0f} |")
    exactly_once(folder, options.ranks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--shards", type=int, default=400)
    parser.add_argument("--ranks", type=int, default=8)
    parser.add_argument("--workers", type=int, default=20, help="that collect into one folder")
    parser.add_argument("--processes", type=int, default=2, help="whose threads they are")
    parser.add_argument("--units", type=int, default=100, help="that they collect")
    parser.add_argument("--pause", type=float, default=0.5, help="seconds for a unit")
    parser.add_argument("--only", choices=["set", "claims"])
    options = parser.parse_args()
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}")
    if options.only != "claims":
        with tempfile.TemporaryDirectory(prefix="golden-noise-") as folder:
            set_of(options, Path(folder))
    if options.only != "set":
        claims(options.workers, options.processes, options.units, options.pause)


if __name__ == "__main__":
    main()
