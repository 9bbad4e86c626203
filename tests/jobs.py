"""Jobs on the real config tree and a tiny random pipeline."""

import json
import random
import shutil
import signal
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from wandb.proto.wandb_internal_pb2 import Record

from golden_noise.cli.config import job_config
from tests.forked import CONTEXT

# Of a training that takes a second; add prompts, the size of shards and epochs.
SMALL_TRAINING = [
    "recipe.batch_size=16",
    "recipe.backbone_args.embed_dim=16",
    "recipe.backbone_args.depth=1",
    "data.val_fraction=0.3",
    "callbacks.progress.refresh_rate=0",
    "trainer.log_every_n_steps=1",
]


@pytest.fixture
def compose_job(tiny_sdxl, tmp_path):
    """Composes the config of a job for the random pipeline; all output goes below tmp_path."""

    def compose_config(job, *overrides):
        places = [f"paths.outputs={tmp_path}/outputs"]
        if job in ("collect", "train"):
            places.append(f"data_dir={tmp_path}/pairs")
        if job != "collect":
            places += [f"folder={tmp_path}/run", "name=test"]
        if job in ("train", "evaluate"):
            places.append("logger=csv")
        if job == "train":
            places += ["evaluate=false", "sample_every_n_epochs=0"]
        # The cheapest to run, unless a test is about others.
        cheap = {"train": ["recipe=shapes", "collection.select_by=null"], "collect": ["collection.select_by=null"]}
        given = {override.partition("=")[0] for override in overrides}
        chosen = [c for c in cheap.get(job, ()) if not given & {c.partition("=")[0], "experiment"}]
        common = [f"pipeline.model.source={tiny_sdxl}", "device=cpu"]
        return job_config(job, [*common, *places, *chosen, *overrides])

    return compose_config


@pytest.fixture
def killed_at_random():
    """Kills a job at random moments, one process or any of several: it ends with what it makes in one go."""

    def check(
        target: Callable[[Any], None],
        plain: Any,
        folder: Path,
        content: Callable[[], dict[str, bytes]],
        moments: tuple[float, float],
        kills: int,
        count: int,
    ):
        """`moments`: the earliest and the latest, as shares of the time that the whole job takes.

        Of several processes, each is killed in its turn and started again while the others go on.
        """

        def start(function=target, *arguments):
            process = CONTEXT.Process(target=function, args=arguments)
            process.start()
            return process

        start(int).join()  # waits for the libraries, which are no part of the duration
        begun = time.perf_counter()
        alone = start(target, plain)
        alone.join()
        duration = time.perf_counter() - begun
        assert alone.exitcode == 0
        whole = content()
        shutil.rmtree(folder)
        rng, killed = random.Random(0), []
        started = [start(target, plain) for _ in range(count)]
        for kill in range(kills * count):
            victim = started[kill % count]
            victim.join(rng.uniform(*moments) * duration / count)
            victim.kill()
            victim.join()
            killed.append(victim.exitcode)
            started[kill % count] = start(target, plain)
        assert {*killed} <= {0, -signal.SIGKILL} and -signal.SIGKILL in killed
        for process in started:
            process.join()
        assert [process.exitcode for process in started] == [0] * count
        assert not list(folder.glob(".batch*"))
        assert content() == whole

    return check


@pytest.fixture
def read_offline_run() -> Callable[[Path], list[tuple[str, dict[str, Any]]]]:
    """Reads an offline W&B run: `run`, `artifact`, and what was logged to `history`, `summary`, `config`, in order."""

    def read(path: Path) -> list[tuple[str, dict[str, Any]]]:
        logged = []
        for record in _finished(path):
            parts = {
                "history": record.history.item,
                "summary": record.summary.update,
                "config": record.config.update,
            }
            for name, items in parts.items():
                if items:
                    logged.append((name, _nested(items)))
            if record.HasField("artifact"):
                found = record.artifact
                files = {entry.path: entry.ref or entry.local_path for entry in found.manifest.contents}
                row = {"name": found.name, "type": found.type, "digest": found.digest, "files": files}
                logged.append(("artifact", row | {"used": found.use_after_commit}))
            if record.HasField("run"):
                run = record.run
                row = {"name": run.display_name, "group": run.run_group, "type": run.job_type, "tags": [*run.tags]}
                logged.append(("run", row))
        return logged

    return read


def _nested(items: Iterable[Any]) -> dict[str, Any]:
    """The logged values by key; an image's stand one by one under keys of several parts."""
    row: dict[str, Any] = {}
    for item in items:
        *outer, key = item.nested_key or [item.key]
        node = row
        for name in outer:
            node = node.setdefault(name, {})
        node[key] = json.loads(item.value_json)
    return row


def _finished(path: Path) -> list[Record]:
    """All records of a run; W&B's service may write the last ones a moment after the run has finished."""
    for _ in range(300):
        records = [Record.FromString(data) for data in _records(path.read_bytes())]
        if any(record.HasField("exit") for record in records):  # W&B's samples of the machine may follow
            return records
        time.sleep(0.1)
    raise AssertionError(f"{path} does not end")


def _records(data: bytes) -> Iterator[bytes]:
    """The records of LevelDB's log format, which W&B writes after a header of 7 bytes."""
    position, record = 7, b""
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:  # no chunk starts in the last bytes of a block
            position += 32768 - position % 32768
        _, length, kind = struct.unpack_from("<IHB", data, position)
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last chunk of one
            yield record
            record = b""
