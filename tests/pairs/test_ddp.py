"""Two real ranks: who sees what, where a resumed run goes on, and that no fault leaves a rank waiting."""

import json
import os
import time
from itertools import chain
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from golden_noise.pairs import ShardIndex
from golden_noise.pairs.dataset import NoisePairDataset
from golden_noise.pairs.loader import NoisePairLoader
from golden_noise.pairs.source import ShardSource
from tests.forked import run_script

from .factory import EMBEDS_SHAPE, LATENT_SHAPE, collect

OPTIONS = {"batch_size": 2, "val_fraction": 0.3, "shuffle_shards": 4, "num_workers": 2}

SCRIPT = """
import json, os, sys
from pathlib import Path

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from golden_noise.cli.entry import run
from golden_noise.pairs import NoisePairDataModule
from tests.pairs.test_datamodule import Recorder
from tests.pairs.test_ddp import EMBEDS_SHAPE, LATENT_SHAPE, OPTIONS

torch.set_num_threads(1)
folder = Path(sys.argv[1])


class Normed(Recorder):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(4)  # its buffers are synchronised, in validation as well

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        self.log("val", self.norm(batch["noise"]).mean(), sync_dist=True)


def fit(name, callbacks=(), ckpt_path=None):
    model = Normed()
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy="ddp_find_unused_parameters_true", max_epochs=2, logger=False,
        accumulate_grad_batches=2, callbacks=list(callbacks), enable_checkpointing=bool(callbacks),
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )
    data = NoisePairDataModule(folder / "pairs", latent_shape=LATENT_SHAPE, embeds_shape=EMBEDS_SHAPE, **OPTIONS)
    try:
        trainer.fit(model, datamodule=data, ckpt_path=ckpt_path)
    except Exception as error:
        print(f"rank {trainer.global_rank}: {type(error).__name__}: {error}", flush=True)
        sys.exit(2)
    seen = {"train": model.seen, "val": model.validated, "scale": model.scale.item()}
    (folder / f"{name}{trainer.global_rank}.json").write_text(json.dumps(seen))
    trainer.strategy.barrier()  # rank 0 does not wait for the others when it ends


saver = ModelCheckpoint(folder / "checkpoints", filename="{step}", save_top_k=-1, every_n_train_steps=1)
fit("whole", [saver])
if sys.argv[2:]:
    fit("resumed", ckpt_path=folder / "checkpoints" / sys.argv[2])
"""


def run(folder: Path, *arguments: str) -> "CompletedProcess[str]":
    (folder / "script.py").write_text(SCRIPT)
    return run_script(folder, str(folder / "script.py"), str(folder), *arguments, timeout=120)


def read(folder: Path, name: str) -> list[dict]:
    return [json.loads((folder / f"{name}{rank}.json").read_text()) for rank in (0, 1)]


def loader(folder: Path, split: str, rank: int = 0) -> NoisePairLoader:
    shapes = {"noise": LATENT_SHAPE, "golden": LATENT_SHAPE, "embeds": EMBEDS_SHAPE}
    options = {name: OPTIONS[name] for name in ("val_fraction", "batch_size", "shuffle_shards")}
    dataset = NoisePairDataset(ShardSource(folder), ShardIndex.load(folder).shards, shapes)
    return NoisePairLoader(dataset, split, rank=rank, world_size=2, **options)


@pytest.mark.long
def test_two_ranks_see_every_pair_once_and_resume_at_the_next(tmp_path):
    """A single shard, fewer than ranks and workers; a checkpoint inside the second epoch."""
    collect(tmp_path / "pairs", [35])
    done = run(tmp_path, "step=5.ckpt")
    assert done.returncode == 0, done.stdout + done.stderr
    whole, resumed = read(tmp_path, "whole"), read(tmp_path, "resumed")
    for split in ("train", "val"):
        pairs = loader(tmp_path / "pairs", split).num_pairs
        assert len(whole[0][split]) == len(whole[1][split])
        for epoch in (0, 1):
            steps = len(whole[0][split]) // 2
            ranks = [rank[split][epoch * steps : (epoch + 1) * steps] for rank in whole]
            keys = [*chain(*ranks[0], *ranks[1])]
            assert len(keys) == len(set(keys)) and pairs - len(keys) in (range(4) if split == "train" else [0])
    steps = len(whole[0]["train"]) // 2
    position = steps + (5 - -(-steps // 2)) * 2
    assert steps < position < 2 * steps
    for rank in (0, 1):
        assert resumed[rank]["train"] == whole[rank]["train"][position:] != []
        assert resumed[rank]["scale"] == pytest.approx(whole[rank]["scale"], rel=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_bad_shard_that_one_rank_reads_ends_both(tmp_path, rank):
    """A pair in each shard: only the one rank that needs it notices, while the other waits for its gradients."""
    collect(tmp_path / "pairs", [1] * 30)
    shard = int(loader(tmp_path / "pairs", "train", rank).plan(0)[1][0, 0])
    path = tmp_path / f"pairs/pairs-{shard:06d}.tar"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    start = time.monotonic()
    done = run(tmp_path)
    assert done.returncode != 0 and time.monotonic() - start < 60
    assert f"rank {rank}: UserError: shard {path} is damaged (its checksum is not the one in index.json)" in done.stdout


@pytest.mark.slow
def test_a_bad_index_is_every_ranks_error(tmp_path):
    collect(tmp_path / "pairs", [20])
    os.truncate(tmp_path / "pairs/index.json", 100)
    done = run(tmp_path)
    assert done.returncode != 0
    for rank in (0, 1):
        assert f"rank {rank}: UserError: {tmp_path}/pairs/index.json is damaged" in done.stdout
