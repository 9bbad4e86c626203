"""More processes of this machine that share a job's work, one for each core of a CPU.

Two processes of one thread each do more than one process of two, and threads of busy processes wait for each other: a
second job on the machine then slows both down many times over.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from golden_noise.device import device_type

MOST = 8  # processes: each loads models of its own
PATIENCE = 10  # seconds for a helper's own end
WORTH = 200  # images or pairs below which starting a process takes longer than it saves


@contextlib.contextmanager
def helpers(config: DictConfig, work: int, units: int, task: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """Has a task done by further processes while the caller does the same; for the miniature on a CPU, else by none.

    The task must share its work by claims (`golden_noise.sharing.claims`), so that the caller ends with everything done
    whatever becomes of the helpers. Meanwhile every process has one thread.

    Args:
        config: of the job; the first argument of the task, as plain containers.
        work: images or pairs to make.
        units: that they are claimed in.
        task: a function of a module, with arguments that can be pickled.
    """
    shared = is_small(config) and "RANK" not in os.environ and work >= WORTH
    count = min(len(os.sched_getaffinity(0)), MOST, units) - 1 if shared else 0
    plain = OmegaConf.to_container(config, resolve=True)
    context: Any = multiprocessing.get_context(_way())
    started = [context.Process(target=_help, args=(task, plain, *arguments), daemon=True) for _ in range(count)]
    with one_thread(config):
        try:
            with _ignoring_interrupts():
                for process in started:
                    process.start()
            yield
            for process in started:  # everything is done, so they end, too
                process.join(PATIENCE)
        finally:
            for process in started:
                process.terminate()
                process.join()


def _way() -> str:
    """How to start a process: a fork need not import anything again, and is safe while this is the only thread."""
    return "fork" if sys.platform == "linux" and threading.active_count() == 1 else "spawn"


def is_small(config: DictConfig) -> bool:
    """Whether a job is the miniature's on a CPU, whose models are too small for several threads."""
    return config.pipeline.bundled and device_type(config.device) == "cpu"


@contextlib.contextmanager
def one_thread(config: DictConfig) -> Iterator[None]:
    """Limits the miniature's jobs to one thread."""
    threads = torch.get_num_threads()
    if is_small(config):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """Processes that are started meanwhile ignore Ctrl-C from their first moment: the caller ends its helpers."""
    if threading.current_thread() is not threading.main_thread():  # where handlers cannot be set
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _help(task: Callable[..., None], plain: Any, *arguments: Any) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None and parent.pid is not None
    # Not os.getppid(): the parent may have been killed while the libraries were imported.
    threading.Thread(target=_end_with, args=(parent.pid,), daemon=True).start()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a fork has the caller's handler
    torch.set_num_threads(1)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        task(OmegaConf.create(plain), *arguments)


def _end_with(parent: int) -> None:
    """End this process when its parent is gone, however that ended."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
