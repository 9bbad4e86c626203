"""A training that torchrun starts again when one of its processes dies, as docs/cluster.md says."""

import json
from pathlib import Path

import pytest

from tests.forked import start_script
from tests.training.test_job import CHEAP, COMPARE_RANKS, SMALL

#: Else processes that start again may read the addresses of those that died.
OWN_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
#: In the second epoch of the first attempt, ranks send themselves a signal.
ENDS = """
import os, pathlib, signal
from lightning import Callback


class Ends(Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        folder, attempt = pathlib.Path(os.environ["COMPARE_FOLDER"]), os.environ["TORCHELASTIC_RESTART_COUNT"]
        with (folder / f"attempt{attempt}-rank{trainer.global_rank}").open("a") as file:
            print(trainer.current_epoch, batch_idx, file=file)
        if attempt == "0" and trainer.current_epoch == 1 and trainer.global_rank in RANKS:
            os.kill(os.getpid(), signal.SIGNAL)
"""


@pytest.mark.parametrize(
    ("signal", "ranks"),
    [
        pytest.param("SIGKILL", [1], marks=pytest.mark.long),
        pytest.param("SIGKILL", [0], marks=pytest.mark.slow),
        pytest.param("SIGTERM", [0, 1], marks=pytest.mark.slow),  # as SLURM does
    ],
)
def test_ended_ranks_start_again_and_go_on_with_the_next_pair(tiny_sdxl, tmp_path, signal, ranks):
    """Killed, from the checkpoint of the first epoch's end; terminated, from one of that moment."""
    (tmp_path / "compare_ranks.py").write_text(COMPARE_RANKS)
    (tmp_path / "ends.py").write_text(ENDS.replace("RANKS", str(ranks)).replace("SIGNAL", signal))
    places = [f"paths.outputs={tmp_path}/outputs", f"data_dir={tmp_path}/pairs", "name=run", "logger=csv", "device=cpu"]
    quick = [*CHEAP, *SMALL, "evaluate=false", "sample_every_n_epochs=0", f"pipeline.model.source={tiny_sdxl}"]
    callbacks = [
        "+callbacks.ends._target_=ends.Ends",
        "+callbacks.compare._target_=compare_ranks.CompareRanks",
    ]
    started = start_script(
        tmp_path,
        *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1", "train.py"),
        *("trainer=ddp", "trainer.accelerator=cpu", *places, *quick, *callbacks),
        environment={"PYTHONPATH": str(tmp_path), "COMPARE_FOLDER": str(tmp_path), **OWN_STORE},
    )
    started.join(250)
    output = (tmp_path / "stderr").read_text()
    assert started.exitcode == 0, output
    assert (tmp_path / "rank0").read_text() == (tmp_path / "rank1").read_text()
    run = tmp_path / "outputs/train/run"
    assert json.loads((run / "run.json").read_text())["ranks"] == 2
    for rank in (0, 1):
        first, second = (rows(tmp_path / f"attempt{attempt}-rank{rank}") for attempt in (0, 1))
        learnt = [row for row in first if row[0] == 0]
        assert len(first) > len(learnt) > 1
        saved = first if signal == "SIGTERM" else learnt
        assert saved + second == [(epoch, batch) for epoch in (0, 1) for batch in range(len(learnt))]


def rows(file: Path) -> list[tuple[int, int]]:
    """Epoch and number of each batch."""
    lines = [line.split() for line in file.read_text().splitlines()]
    return [(int(epoch), int(batch)) for epoch, batch in lines]
