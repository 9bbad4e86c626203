"""Processes that help a job of the miniature: the result is that of one process."""

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from golden_noise.collecting.job import collect
from golden_noise.sharing import helpers as module
from golden_noise.sharing.helpers import helpers
from tests.forked import CONTEXT

OPTIONS = ["prompts.count=96", "collection.shard_size=8", "search=redenoise"]


def helping():
    """The helpers that live."""
    return [
        child for child in multiprocessing.active_children() if child.name.startswith(("ForkProcess", "SpawnProcess"))
    ]


@pytest.fixture(params=["fork", pytest.param("spawn", marks=pytest.mark.long)])
def way(request, monkeypatch):
    """How helpers are started."""
    monkeypatch.setattr(module, "_way", lambda: request.param)
    return request.param


def shards(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


def test_helped_a_collection_is_that_of_one_process(compose_job, tmp_path, monkeypatch, way):
    collect(compose_job("collect", *OPTIONS, f"data_dir={tmp_path}/alone"))
    threads = torch.get_num_threads()
    monkeypatch.setattr(module, "WORTH", 1)
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: {0, 1})
    collect(compose_job("collect", *OPTIONS, f"data_dir={tmp_path}/helped"))
    assert shards(tmp_path / "helped") == shards(tmp_path / "alone")
    assert len(shards(tmp_path / "helped")) == 12
    assert not helping()
    assert torch.get_num_threads() == threads


def wait(config, folder):
    """Says that it runs, and never ends."""
    Path(folder, "started").touch()
    while True:
        time.sleep(1)


def test_a_failure_ends_the_helpers(compose_job, tmp_path, monkeypatch, way):
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: {0, 1})
    config = compose_job("collect", *OPTIONS)
    with pytest.raises(ZeroDivisionError), helpers(config, 10_000, 10, wait, str(tmp_path)):
        (helper,) = helping()
        assert helper.name.startswith(way.title())
        status = Path(f"/proc/{helper.pid}/status").read_text().splitlines()
        ignored = int(next(line for line in status if line.startswith("SigIgn")).split()[1], 16)
        assert ignored & (1 << (signal.SIGINT - 1))  # from the first moment, so that Ctrl-C brings no traceback
        raise ZeroDivisionError
    assert not helper.is_alive()


def abandon(config, folder):
    """Start a helper and be killed before it has imported anything."""
    module.os.sched_getaffinity = lambda _: {0, 1}
    with helpers(OmegaConf.create(config), 10_000, 10, wait, folder):
        (helper,) = helping()
        Path(folder, "helper").write_text(str(helper.pid))
        os.kill(os.getpid(), signal.SIGKILL)


def alive(pid):
    status = Path(f"/proc/{pid}/status")
    try:
        return "State:\tZ" not in status.read_text()
    except FileNotFoundError:
        return False


def test_a_helper_ends_with_a_caller_that_was_killed_at_once(compose_job, tmp_path):
    config = OmegaConf.to_container(compose_job("collect", *OPTIONS), resolve=True)
    caller = CONTEXT.Process(target=abandon, args=(config, str(tmp_path)))
    caller.start()
    caller.join()
    pid = int((tmp_path / "helper").read_text())
    end = time.monotonic() + 60
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.2)
    if alive(pid):
        os.kill(pid, signal.SIGKILL)
        pytest.fail("the helper goes on by itself")


@pytest.mark.parametrize(
    ("work", "units", "option"),
    [
        (10, 10, None),  # starting a process would take longer
        (10_000, 1, None),  # nothing to share
        (10_000, 10, "pipeline.bundled=false"),  # models of another size
    ],
)
def test_little_work_and_other_pipelines_get_none(compose_job, work, units, option):
    config = compose_job("collect", *([option] if option else []))
    with helpers(config, work, units, wait, "nowhere"):
        assert not helping()


def test_only_a_process_of_one_thread_is_forked():
    assert module._way() == ("fork" if threading.active_count() == 1 else "spawn")
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    assert module._way() == "spawn"
    stop.set()
    thread.join()
