"""Processes that help a job of the miniature: the result is that of one process."""

import multiprocessing

import pytest
import torch

from golden_noise.collecting.job import collect
from golden_noise.sharing import helpers as module
from golden_noise.sharing.helpers import helpers

OPTIONS = ["prompts.count=96", "collection.shard_size=8", "search=redenoise"]


def helping():
    """The helpers that live."""
    return [child for child in multiprocessing.active_children() if child.name.startswith("Spawn")]


def shards(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


def test_helped_a_collection_is_that_of_one_process(compose_job, tmp_path, monkeypatch):
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
    import time
    from pathlib import Path

    Path(folder, "started").touch()
    while True:
        time.sleep(1)


def test_a_failure_ends_the_helpers(compose_job, tmp_path, monkeypatch):
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: {0, 1})
    config = compose_job("collect", *OPTIONS)
    with pytest.raises(ZeroDivisionError), helpers(config, 10_000, 10, wait, str(tmp_path)):
        (helper,) = helping()
        raise ZeroDivisionError
    assert not helper.is_alive()


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
