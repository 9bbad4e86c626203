"""Runs jobs as forks of a process that has imported everything, and with faults."""

import contextlib
import os
import resource
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from golden_noise.cli.run_log import COLOURS
from tests.chaos.faults import Fault, disarm, resident_space
from tests.chaos.jobs import NOTES, Job
from tests.chaos.library import State
from tests.forked import ROOT, end_like_python

PATIENCE = 600.0  # seconds


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, negative for a signal, and what it wrote."""

    code: int
    output: str

    @property
    def verdict(self) -> str:
        """One of unharmed, refused (in one line), killed, unclear."""
        if self.code < 0:
            return "killed"
        if self.code == 0:
            return "unclear" if "Traceback" in self.output else "unharmed"
        return "refused" if len(self.errors) == 1 and "Traceback" not in self.output else "unclear"

    @property
    def errors(self) -> list[str]:
        """The lines that begin with `error:`."""
        lines = COLOURS.sub("", self.output).replace("\r", "\n").splitlines()
        return [line for line in lines if line.startswith("error: ")]


class Runner:
    """Runs commands in a working directory of their own.

    Args:
        folder: for that directory and for what the processes write.
    """

    def __init__(self, folder: Path, state: State):
        self.state, self.root, self.outputs = state, folder / "Ordner mit Leerzeichen ü", folder / "written"
        self.other = folder / "other.tar"  # takes the place of a shard
        self.outputs.mkdir()
        self._groups: list[int] = []

    def prepare(self, before: Path | None, job: Job) -> None:
        """Begin anew, with a copy of a folder, and with a file of the user's."""
        self.end_groups()
        shutil.rmtree(self.root, ignore_errors=True)
        if before:
            shutil.copytree(before, self.root)
        notes = self.root / job.folder / NOTES
        notes.parent.mkdir(parents=True, exist_ok=True)
        notes.write_text("nicht löschen", "utf-8")

    def run(self, job: Job, fault: Fault) -> list[Ended]:
        """Run a job with a fault, to its end; twice at a time if the fault says so."""
        fault.arm(self.state, str(self.root))
        self.state.from_, self.state.to = str(self.other).encode(), str(self.root / (job.shard or "")).encode()
        processes = [self._start(job, fault, 0)]
        ended: dict[int, int] = {}
        deadline = time.monotonic() + PATIENCE
        while len(ended) < len(processes):
            if fault.second_at and len(processes) == 1 and (ended or self.state.seen >= fault.second_at):
                processes.append(self._start(job, fault, 1))
            for process in processes:
                if process not in ended:
                    done, status = os.waitpid(process, os.WNOHANG)
                    if done:
                        ended[process] = os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{' '.join(job.command)} hangs after {fault}: {self._output(0)}")
            time.sleep(0.002)
        self.state.root = b""
        return [Ended(ended[process], self._output(number)) for number, process in enumerate(processes)]

    def undisturbed(self, job: Job) -> Ended:
        """Run a job, and only count its calls."""
        disarm(self.state)
        return self.run(job, Fault("none"))[0]

    def end_groups(self) -> None:
        """Kill what killed processes left behind, such as the workers of a DataLoader."""
        for group in self._groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        self._groups.clear()

    def _start(self, job: Job, fault: Fault, number: int) -> int:
        process = os.fork()
        if process:
            self._groups.append(process)
            return process
        os.setsid()
        file = os.open(self.outputs / str(number), os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        if fault.memory is not None:
            limit = resident_space() + fault.memory
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        script, *settings = job.command
        end_like_python((str(ROOT / script), *settings), dict(os.environ), str(self.root), sys.executable)
        raise AssertionError

    def _output(self, number: int) -> str:
        return (self.outputs / str(number)).read_text("utf-8", errors="replace")
