"""Multiruns (`-m`): every job is a process of its own, in a folder named after what varies, and is done once.

The job `model=unet seed=1` of the sweep NAME is `python train.py model=unet seed=1 name='NAME/model=unet,seed=1'`. It
has a process of its own for two reasons. Lightning starts the other ranks of a DDP training with its own process's
command line: under `-m` each of them would run the whole sweep. And a job that dies, whatever of, takes no other along.

Several processes may run the same sweep, on one machine or on several that share the folder: each takes the jobs that
no other has. A sweep that is started again with the same command does what is missing.
"""

import fcntl
import hashlib
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from golden_noise.cli.arguments import prepare
from golden_noise.errors import UserError
from golden_noise.sharing.processes import started_several_times
from golden_noise.tracking import record
from golden_noise.tracking.record import without_name

LONGEST = 120  # characters of a folder's name
OWN_TO_THE_SWEEP = ("hydra.mode=", "hydra.sweep", "hydra.launcher", "hydra/launcher", "hydra.run.dir=")


def is_sweep() -> bool:
    """Whether this process was started with -m."""
    return HydraConfig.get().mode == RunMode.MULTIRUN


def run_job(config: DictConfig) -> None:
    """Run the job that Hydra is at, unless it is finished or another process has it.

    Raises:
        UserError: it failed, or its folder holds a finished run of other settings.
    """
    _check_alone()
    hydra = HydraConfig.get()
    folder, number = Path(hydra.runtime.output_dir), hydra.job.num + 1
    overrides = [as_argument(text) for text in without_name(hydra.overrides.task)]
    command = [sys.executable, sys.argv[0], *_flags(), *overrides, f"hydra.run.dir={quoted(str(folder))}"]
    if "name" in config:
        runs = Path(config.paths.outputs).absolute() / config.job
        command.append(f"name={quoted(os.path.relpath(folder.absolute(), runs))}")
    with held(folder) as lock:
        if lock is None:
            print(f"job {number}, {folder.name}: another process has it")
        elif is_finished(folder, overrides):
            print(f"job {number}, {folder.name}: finished already")
        else:
            print(f"job {number}, {folder.name}: {shlex.join(command[1:])}", flush=True)
            # The job holds the lock, too: if only this process is killed, a restart does not run the job twice.
            code = subprocess.run(command, pass_fds=[lock]).returncode
            if code:
                raise UserError(f"job {number}, {folder.name}, {_how(code)}: the same command tries it again")


def folder() -> Path:
    """Where the jobs' folders are."""
    return Path(HydraConfig.get().sweep.dir).absolute()


def finish(folder: Path) -> None:
    """Write the summary of a sweep that just ended, if it was one of trainings."""
    if any(record.read(path.parent) for path in folder.glob(f"*/{record.RECORD}")):
        from golden_noise.sweeps.summary import summarize  # loads much

        summarize(folder)


@contextmanager
def held(folder: Path) -> Iterator[int | None]:
    """Holds a folder against other processes: gives the lock's file descriptor, or None if another has it.

    The lock ends with the processes that hold it; a kill cannot leave it behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield file.fileno()


def is_finished(folder: Path, overrides: Sequence[str]) -> bool:
    """Whether a folder holds a finished training of these settings.

    Raises:
        UserError: it holds one of others.
    """
    if (found := record.read(folder)) is None:
        return False
    have, want = (set(settings) for settings in (found.get("overrides", []), overrides))
    if have != want:
        difference = " ".join(sorted(have ^ want))
        raise UserError(
            f"{folder} holds a finished run of other settings ({difference}): "
            "give another name=NAME or delete that folder"
        )
    return True


def as_argument(override: str) -> str:
    """A setting of a job as an argument of its own command line: Hydra's sweeper escapes blanks and the like."""
    if "\\" not in override:
        return override
    parsed = OverridesParser.create().parse_override(override)
    value = parsed.value()
    return f"{override.partition('=')[0]}={quoted(value)}" if isinstance(value, str) else override


def quoted(text: str) -> str:
    """A text as one value of Hydra's command line."""
    return QuotedString(text, Quote.single).with_quotes()


def _check_alone() -> None:
    if started_several_times():
        raise UserError(
            "-m under torchrun or in several SLURM tasks: start the sweep as one plain process (of an sbatch --array, "
            "each is), Lightning starts the ranks of every job"
        )


def _flags() -> list[str]:
    """Arguments of this process that the jobs need, too: Hydra's flags and settings, but not those of the sweep."""
    own = {*get_args_parser().parse_args().overrides, "-m", "--multirun"}
    settings = [text for text in HydraConfig.get().overrides.hydra if not text.startswith(OWN_TO_THE_SWEEP)]
    return [argument for argument in sys.argv[1:] if argument not in own] + settings


def _how(code: int) -> str:
    if code > 0:
        return f"failed with exit code {code}"
    return f"was ended by {signal.Signals(-code).name}" + (" (out of memory?)" if -code == signal.SIGKILL else "")


# Names ----------------------------------------------------------------------------------------------------


def sweep_name(name: str, *, _root_: DictConfig) -> str:
    """Name of the sweep's folder: the given one, else one that the same command line gives again."""
    settings = sorted(_settings())
    if any(text.startswith("name=") for text in settings):
        return name
    keys = "-".join(key.rpartition(".")[2] for key in _swept(_root_))
    return f"sweep-{keys}-{_digest(' '.join(settings))}"


def job_folder(*, _root_: DictConfig) -> str:
    """Name of a job's folder: its values of what varies in the sweep, such as `model=unet,seed=1`."""
    parser, keys = OverridesParser.create(), _swept(_root_)
    task = list(_root_.hydra.overrides.task)
    text = ",".join(o for o in task if parser.parse_override(o).get_key_element() in keys)
    short = re.sub(r"[^\w.+=,@-]+", "_", text)[:LONGEST]
    return (short if short == text else f"{short}-{_digest(text)}") or str(_root_.hydra.job.num)


def _swept(root: DictConfig) -> list[str]:
    """Keys that have several values, in the order of the command line."""
    params: Mapping[str, str] = OmegaConf.select(root, "hydra.sweeper.params") or {}
    found = OverridesParser.create().parse_overrides([f"{k}={v}" for k, v in params.items()] + _settings())
    return list(dict.fromkeys(o.get_key_element() for o in found if o.is_sweep_override()))


def _settings() -> list[str]:
    return prepare(get_args_parser().parse_args().overrides, multirun=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


OmegaConf.register_new_resolver("sweep_name", sweep_name, replace=True)
OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)
