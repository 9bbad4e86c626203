"""Injects faults into all jobs and counts what becomes of them: `python -m tests.chaos.inject --faults 300`.

After every fault the user's own files must be there. In the end the same command runs undisturbed, and what it leaves
must be what a run that nothing disturbed leaves.
"""

import argparse
import importlib
import json
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from golden_noise.cli.config import job_config
from tests.chaos.faults import NAMES, Draw, Fault
from tests.chaos.jobs import JOBS, NOTES, Job, content, difference, digest
from tests.chaos.library import build, shared_state
from tests.chaos.runner import Ended, Runner

IMPORTED = (
    "diffusers.optimization",
    "golden_noise.collecting.report",
    "golden_noise.shapes.models",
    "golden_noise.training.job",
    "timm",
    "wandb",
)
RETRY = "mode=retry tries them again"  # says the summary of a collection with failed prompts
VERDICTS = ("injected", "killed", "unharmed", "refused", "unclear", "lost")


class Chaos:
    """Faults for one job.

    Args:
        runner: runs it.
        seed: of the faults.
        folder: for what is there before the job, a folder for every job.
    """

    def __init__(self, name: str, runner: Runner, seed: int, folder: Path):
        self.name, self.job, self.runner = name, JOBS[name], runner
        self.rng = random.Random(f"{seed} {name}")
        self.before = folder / name
        self.counted: Counter[tuple[str, str]] = Counter()
        self._prepare()

    def _prepare(self) -> None:
        runner, job = self.runner, self.job
        runner.prepare(None, job)
        for command in job.before:
            self._must_work(runner.undisturbed(Job(command, job.folder)))
        job.edit(runner.root / job.folder)
        shutil.copytree(runner.root, self.before)
        self._must_work(runner.undisturbed(job))
        self.known = {  # what may stand in the user's files
            pattern: {digest(path) for root in (self.before, runner.root) for path in (root / job.folder).glob(pattern)}
            for pattern in (NOTES, *job.precious)
        }
        self.whole = content(runner.root)
        self.shard = (runner.root / job.shard).read_bytes() if job.shard else b""
        self.draw = Draw(self.rng, list(runner.state.counts))

    def _must_work(self, ended: Ended) -> None:
        assert ended.code == 0, f"{self.name} without any fault: {ended.output}"

    def experiment(self, names: list[str]) -> None:
        """Some faults in a row, then an undisturbed run."""
        self.runner.prepare(self.before, self.job)
        faults = [self.draw(name) for name in names if name != "replaced" or self.job.shard]
        for fault in faults:
            self._inject(fault)
        if not faults:
            return
        ended = self.runner.undisturbed(self.job)
        if RETRY in ended.output:
            ended = self.runner.undisturbed(Job([*self.job.command, "mode=retry"], self.job.folder))
        problem = f"exit code {ended.code}: {ended.output[-3000:]}" if ended.code else self._difference()
        if problem:
            self._count("lost", faults[-1], f"after {'; '.join(map(str, faults))}: {problem}")

    def _inject(self, fault: Fault) -> None:
        if fault.damage:
            self.runner.other.write_bytes(damaged(self.shard, fault.damage))
        runs = self.runner.run(self.job, fault)
        if fault.damage and (self.runner.root / self.job.shard).exists():
            (self.runner.root / self.job.shard).write_bytes(self.shard)
        state = self.runner.state
        where = f" at {Path(state.where.decode()).relative_to(self.runner.root)}" if state.where else ""
        happened = fault.memory is not None or len(runs) > 1 or state.fired or state.clock_calls > fault.clock[0] > 0
        if not happened:
            return
        self._count("injected", fault)
        for run in runs[: 1 if fault.second_at is None else 2]:
            bad = run.verdict == "unclear" or (run.verdict == "refused" and fault.name in ("clock", "short"))
            self._count(run.verdict, fault, f"{fault}{where}: code {run.code}: {run.output[-4000:]}" if bad else "")
            if run.verdict == "refused":
                print(f"[{self.name}] {fault}{where}: {run.errors[0]}", flush=True)
        advised = any(RETRY in run.output for run in runs)
        if any(run.code == 0 for run in runs) and not advised and (problem := self._difference()):
            self._count("lost", fault, f"{fault}, but exit code 0: {problem}: {runs[0].output[-3000:]}")
        for pattern in (NOTES, *self.job.precious):
            here = {digest(path) for path in (self.runner.root / self.job.folder).glob(pattern)}
            if not here & self.known[pattern]:
                self._count("lost", fault, f"{fault}{where}: {pattern} is gone")

    def _difference(self) -> str:
        return difference(content(self.runner.root), self.whole)

    def _count(self, verdict: str, fault: Fault, words: str = "") -> None:
        self.counted[fault.name, verdict] += 1
        if words:
            print(f"[{self.name}] {verdict.upper()} {words}", flush=True)


def damaged(shard: bytes, how: str) -> bytes:
    """Half of a shard, or all of it with another byte."""
    middle = len(shard) // 2
    return shard[:middle] if how == "half" else shard[:middle] + bytes([shard[middle] ^ 1]) + shard[middle + 1 :]


def warm_up(names: Sequence[str]) -> None:
    """Import what the jobs import, and read their configs once."""
    for name in IMPORTED:
        importlib.import_module(name)
    Image.init()
    for script in {JOBS[name].command[0] for name in names}:
        job = script.removesuffix(".py")
        job_config(job, [] if job == "collect" else ["name=x", "folder=x"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=100, help="how many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", nargs="+", default=list(JOBS), choices=JOBS)
    parser.add_argument("--kinds", nargs="+", default=list(NAMES), choices=NAMES)
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so many")
    parser.add_argument("--in-a-row", type=int, default=3, help="faults between two undisturbed runs, at most")
    options = parser.parse_args()
    if "CHAOS_STATE" in os.environ:
        warm_up(options.jobs)
        sys.exit(inject(options, Path(os.environ["CHAOS_STATE"]).parent))
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:  # not in the process that forks: forks clean up, too
        environment = os.environ | build(Path(folder))
        environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}
        command = [sys.executable, "-m", "tests.chaos.inject", *sys.argv[1:]]
        sys.exit(subprocess.run(command, env=environment, check=False).returncode)


def inject(options: argparse.Namespace, folder: Path) -> int:
    runner = Runner(folder, shared_state())
    rng = random.Random(options.seed)
    jobs = [Chaos(name, runner, options.seed, folder / "before") for name in options.jobs]
    left = [options.kinds[i % len(options.kinds)] for i in range(options.faults)]
    rng.shuffle(left)
    turn = 0
    end = time.monotonic() + 60 * options.minutes
    while left and time.monotonic() < end:
        count = min(len(left), rng.randint(1, options.in_a_row))
        jobs[turn % len(jobs)].experiment([left.pop() for _ in range(count)])
        turn += 1
    runner.end_groups()
    counted = sum((job.counted for job in jobs), Counter())
    rows = {name: {verdict: counted[name, verdict] for verdict in VERDICTS} for name in options.kinds}
    total = {verdict: sum(row[verdict] for row in rows.values()) for verdict in VERDICTS}
    for name, row in (rows | {"all": total}).items():
        print(f"{name:14}" + "".join(f"{row[verdict]:>6} {verdict}" for verdict in VERDICTS))
    print(json.dumps(total))
    return 1 if total["unclear"] or total["lost"] else 0


if __name__ == "__main__":
    main()
