"""The processes of one job: which of them this is, and a message if the others do not start."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from golden_noise.errors import UserError

PATIENCE = 5.0  # seconds until a wait is announced


def started_several_times() -> bool:
    """Whether torchrun or SLURM start this command as several processes."""
    return (_torchrun() and os.environ.get("WORLD_SIZE") != "1") or slurm_tasks()


def slurm_tasks() -> bool:
    """Whether SLURM starts this command as several tasks, without torchrun in between.

    In a single task, and in SLURM's interactive shells, Lightning starts the processes.
    """
    if _torchrun():
        return False
    if os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        in_shell = "SLURM_PTY_PORT" in os.environ
        return not in_shell and os.environ.get("SLURM_STEP_NUM_TASKS", "1") != "1"
    return os.environ.get("SLURM_NTASKS", "1") != "1"


def per_machine(default: int | str) -> int | str:
    """How many processes of this job a machine has, where torchrun or SLURM start them."""
    return _count("LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE") or default


def machines() -> int:
    """How many machines torchrun or SLURM start this job on."""
    return _count("GROUP_WORLD_SIZE", "SLURM_NNODES") or 1


def _torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def _count(torchrun: str, slurm: str) -> int | None:
    """A number that torchrun or SLURM set, where they start the processes."""
    name = slurm if slurm_tasks() else torchrun
    if not (text := os.environ.get(name)):
        if name == "SLURM_NTASKS_PER_NODE":  # Lightning needs it
            raise UserError("SLURM starts several tasks, but does not say how many on a node: add --ntasks-per-node=N")
        return None
    if not text.isdecimal() or not int(text):
        raise UserError(f"the environment's {name}={text} is not a number of processes: unset it, or set it to one")
    return int(text)


def is_first() -> bool:
    """Whether this is the first of a job's processes, however they are started: the one that logs and tidies."""
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return os.environ["RANK"] == "0"
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


@contextmanager
def announcing_a_wait(one_process: str) -> Iterator[threading.Timer]:
    """Says on stderr that this process waits for others, unless they start within seconds.

    SLURM's variables in a job without `srun`, or torchrun's set by hand, make one process wait for ever. Cancel the
    timer once the processes have met.

    Args:
        one_process: the settings for a job in one process.
    """
    cause, command = ("SLURM_NTASKS", "srun") if slurm_tasks() else ("the environment", "torchrun")
    expected = os.environ.get("SLURM_NTASKS" if slurm_tasks() else "WORLD_SIZE")
    text = (
        f"waiting for {f'all {expected}' if expected else 'the other'} processes of this job, as {cause} says:"
        f" start them with {command}, or give {one_process} for one process"
    )
    timer = threading.Timer(PATIENCE, lambda: print(text, file=sys.stderr, flush=True))
    timer.daemon = True
    if is_first() and (started_several_times() or "LOCAL_RANK" in os.environ):
        timer.start()
    try:
        yield timer
    finally:
        timer.cancel()
