"""One job of a sweep: a process of its own, in a locked folder of its own, done once.

The job `model=unet seed=1` of the sweep NAME is `python train.py model=unet seed=1 name='NAME/model=unet,seed=1'`. It
has a process of its own for two reasons. Lightning starts the other ranks of a DDP training with the command line of
its process: under `-m` each of them would run the whole sweep. And a job that dies stops no other.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from golden_noise.errors import UserError
from golden_noise.sharing.claims import try_lock
from golden_noise.sweeps.halving import Halving
from golden_noise.sweeps.runs import Run
from golden_noise.tracking import record

POLL = 0.5  # seconds between looks at a job
PATIENCE = 60  # seconds that a job gets to end by itself
STOPPED = "stopped.json"  # instead of the record, of a training that fell behind
OUTPUT = "output.txt"  # of a job that runs beside others


class Interrupted(Exception):
    """The sweep ends before the job does."""


@dataclass(frozen=True)
class Job:
    """A job of a sweep.

    Args:
        number: in the sweep, from 0.
        overrides: its settings, without its name.
        command: the command line that runs it.
        halving: which trainings stop before their end, if any.
    """

    number: int
    folder: Path
    overrides: Sequence[str]
    command: Sequence[str]
    halving: Halving | None = None

    def __str__(self) -> str:
        return f"job {self.number + 1}, {self.folder.name}"

    def result(self) -> dict[str, Any] | None:
        """The record of the job, None if it has none; refuse a folder with a run of other settings."""
        result = record.read(self.folder) or (record.read(self.folder, STOPPED) if self.halving else None)
        if result and (difference := {*result.get("overrides", [])} ^ {*self.overrides}):
            raise UserError(
                f"{self.folder} holds a finished run of other settings ({' '.join(sorted(difference))}): "
                "give another name=NAME or delete that folder"
            )
        return result

    def run(self, lock: int, is_over: Callable[[], bool], apart: bool) -> None:
        """Run the job to its end, or until it has fallen behind.

        Args:
            lock: of its folder, which the job holds too: if only this process is killed, a restart does not run the
                job twice.
            is_over: whether the sweep ends.
            apart: write the job's output into its folder, not to the terminal.

        Raises:
            UserError: it failed.
            Interrupted: the sweep ended.
        """
        print(f"{self}: {shlex.join(['python', *self.command[1:]])}", flush=True)
        with (self.folder / OUTPUT).open("ab") if apart else contextlib.nullcontext() as output:
            process = subprocess.Popen(
                self.command,
                stdout=output,
                stderr=output,
                pass_fds=[lock],
                start_new_session=True,  # so that it can be stopped with all its ranks
            )
            stopped = self._watch(process, is_over)
        if stopped or not process.returncode:
            return
        if is_over():
            raise Interrupted
        where = f" ({self.folder / OUTPUT})" if apart else ""
        raise UserError(f"{self}, {_how(process.returncode)}{where}: rerun the same command to try it again")

    def _watch(self, process: subprocess.Popen[bytes], is_over: Callable[[], bool]) -> bool:
        """Wait until a process ends, or end it; whether it had fallen behind."""
        run = Run(self.folder, {}, None)
        try:
            while process.poll() is None:
                time.sleep(POLL)
                if is_over():
                    break
                if self.halving and self.halving.stops(run):
                    _end(process)
                    if record.read(self.folder) is None:  # it had not just finished
                        stopped = {"overrides": list(self.overrides), "explained": run.explained}
                        record.write(self.folder, stopped, STOPPED)
                        print(f"{self}: stopped, it has fallen behind", flush=True)
                    return True
        finally:
            _end(process)
        return False


@contextlib.contextmanager
def held(folder: Path) -> Iterator[int | None]:
    """Locks a folder: gives the lock's file descriptor, or None if another process has it.

    The lock ends with the processes that hold it, so a kill cannot leave it behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        yield file.fileno() if try_lock(file) else None


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop a job and all its ranks, if they still run."""
    if process.poll() is not None:
        return
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(PATIENCE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _how(code: int) -> str:
    if code > 0:
        return f"failed with exit code {code}"
    return f"was ended by {signal.Signals(-code).name}" + (" (out of memory?)" if -code == signal.SIGKILL else "")
