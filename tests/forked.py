"""Processes that need not import the libraries again: they are forked from one server that has done so.

Importing takes nine seconds, which is most of what a test of an entry point would cost otherwise.
"""

import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import CompletedProcess

from golden_noise.cli.conf import CONF

ROOT = CONF.parent
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["golden_noise.training.job", "golden_noise.generation.job", "golden_noise.shapes.models"]
)


def start_script(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> BaseProcess:
    """Start `python ARGUMENTS...` in the repository, such as `train.py model=unet`.

    Args:
        folder: gets what it writes, as `stdout` and `stderr`.
        environment: variables beside those of this process.
    """
    process = CONTEXT.Process(target=_script, args=(folder, arguments, {**os.environ, **(environment or {})}))
    process.start()
    return process


def run_script(
    folder: Path, *arguments: str, environment: Mapping[str, str] | None = None, timeout: float = 250
) -> "CompletedProcess[str]":
    """Run it to its end; see `start_script`."""
    process = start_script(folder, *arguments, environment=environment)
    process.join(timeout)
    process.kill()
    process.join()
    said = [(folder / name).read_text("utf-8") for name in ("stdout", "stderr")]
    return CompletedProcess(arguments, process.exitcode or 0, *said)


def _script(folder: Path, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_CREAT | os.O_TRUNC | os.O_WRONLY), descriptor)
    sys.stdout, sys.stderr = (open(descriptor, "w", buffering=1, closefd=False) for descriptor in (1, 2))  # noqa: SIM115
    sys.argv, sys.path[:0] = list(arguments), [str(ROOT), *environment.get("PYTHONPATH", "").split(os.pathsep)]
    runpy.run_path(arguments[0], run_name="__main__")
