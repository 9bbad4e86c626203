import os
from pathlib import Path

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from golden_noise.errors import UserError
from golden_noise.pairs import NoisePairDataModule, ShardWriter

from .factory import CONFIG, EMBEDS_SHAPE, LATENT_SHAPE, collect, make_pair

SIZES = [9, 4, 12, 6]


class Recorder(LightningModule):
    """Learns one number and remembers which pairs it saw."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.seen: list[tuple[str, ...]] = []
        self.validated: list[tuple[str, ...]] = []

    def training_step(self, batch, batch_idx):
        self.seen.append(tuple(batch["key"]))
        return (self.scale * batch["noise"] - batch["golden"]).square().mean()

    def validation_step(self, batch, batch_idx):
        self.validated.append(tuple(batch["key"]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def datamodule(folder: Path, **kwargs) -> NoisePairDataModule:
    options = {"batch_size": 4, "val_fraction": 0.3, "shuffle_buffer": 8}
    shapes = {"latent_shape": LATENT_SHAPE, "embeds_shape": EMBEDS_SHAPE}
    return NoisePairDataModule(folder, **options | shapes | kwargs)


def fit(folder: Path, callbacks=(), ckpt_path=None, num_workers=0, **trainer_options) -> Recorder:
    trainer = Trainer(
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 3} | trainer_options,
    )
    model = Recorder()
    trainer.fit(model, datamodule=datamodule(folder, num_workers=num_workers), ckpt_path=ckpt_path)
    return model


def test_epochs_differ_and_a_rerun_repeats_them(tmp_path):
    collect(tmp_path, SIZES)
    runs = [fit(tmp_path), fit(tmp_path), fit(tmp_path, num_workers=2)]
    assert runs[0].seen == runs[1].seen == runs[2].seen
    steps = len(runs[0].seen) // 3
    epochs = [runs[0].seen[i * steps : (i + 1) * steps] for i in range(3)]
    assert steps > 2 and epochs[0] != epochs[1] != epochs[2] != epochs[0]
    trained = {key for batch in runs[0].seen for key in batch}
    assert runs[0].validated and trained.isdisjoint(key for batch in runs[0].validated for key in batch)


def test_reloading_the_loaders_every_epoch_changes_nothing(tmp_path):
    collect(tmp_path, SIZES)
    assert fit(tmp_path, reload_dataloaders_every_n_epochs=1).seen == fit(tmp_path).seen


@pytest.mark.parametrize("length", [{"max_epochs": 3}, {"max_epochs": -1, "max_steps": 13}], ids=["epochs", "steps"])
@pytest.mark.parametrize(
    "moment",
    [
        {"every_n_train_steps": 1},
        {"every_n_epochs": 1, "save_on_train_epoch_end": True},
        {"every_n_epochs": 1, "save_on_train_epoch_end": False},
    ],
    ids=["batch", "epoch", "validation"],
)
def test_a_resumed_run_goes_on_with_the_next_batch(tmp_path, moment, length):
    """From every checkpoint of a run: inside an epoch, at its last batch and after it."""
    collect(tmp_path / "pairs", SIZES)
    folder = tmp_path / "checkpoints"
    saver = ModelCheckpoint(folder, filename="{step}", save_top_k=-1, **moment)
    whole = fit(tmp_path / "pairs", callbacks=[saver], **length).seen
    checkpoints = list(folder.iterdir())
    assert len(checkpoints) == len(whole) if "every_n_train_steps" in moment else len(checkpoints) >= 2
    for path in checkpoints:
        step = torch.load(path, weights_only=True)["global_step"]
        resumed = fit(tmp_path / "pairs", ckpt_path=path, **length).seen
        assert resumed == whole[step:], path.name


def test_a_resumed_run_with_workers_goes_on_with_the_next_batch(tmp_path):
    collect(tmp_path / "pairs", SIZES)
    saver = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=7)
    whole = fit(tmp_path / "pairs", callbacks=[saver], num_workers=2).seen
    resumed = fit(tmp_path / "pairs", ckpt_path=tmp_path / "step=7.ckpt", num_workers=2).seen
    assert resumed == whole[7:]


def test_overfitting_sees_the_same_batches_every_epoch(tmp_path):
    collect(tmp_path, SIZES)
    seen = fit(tmp_path, overfit_batches=2).seen
    assert seen[:2] == seen[2:4] == seen[4:] and len(seen) == 6


def test_the_loader_knows_its_length(tmp_path):
    collect(tmp_path, SIZES)
    data = datamodule(tmp_path)
    data.prepare_data()
    data.setup("fit")
    for loader in (data.train_dataloader(), data.val_dataloader()):
        assert len(loader) == len(list(loader)) > 0


def test_collect_is_called_before_the_pairs_are_read(tmp_path):
    calls = []

    def collect_missing():
        calls.append(tmp_path)
        collect(tmp_path, SIZES)

    for count in (1, 2):  # an existing set is completed too
        data = datamodule(tmp_path, collect=collect_missing)
        data.prepare_data()
        data.setup("fit")
        assert len(calls) == count


def prepare(folder: Path, **kwargs) -> None:
    data = datamodule(folder, **kwargs)
    data.prepare_data()
    data.setup("fit")


def test_without_pairs_the_command_to_run_is_shown(tmp_path):
    with pytest.raises(UserError, match=r"python collect\.py pipeline=tiny"):
        prepare(tmp_path, collect_hint="python collect.py pipeline=tiny")


def test_a_truncated_or_missing_shard_is_found_before_training(tmp_path):
    collect(tmp_path, SIZES)
    path = tmp_path / "pairs-000002.tar"
    os.truncate(path, 1000)
    with pytest.raises(UserError, match=r"pairs-000002\.tar has 1000 of \d+ bytes: delete it.*collect\.py"):
        prepare(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=r"pairs-000002\.tar is missing.*collect\.py"):
        prepare(tmp_path)


def test_pairs_of_another_shape_are_found_before_training(tmp_path):
    collect(tmp_path, SIZES)
    with pytest.raises(UserError, match=r"are 4x2x2 with 3x5 embeddings, .* needs 4x8x8 with 3x5 embeddings"):
        prepare(tmp_path, latent_shape=(4, 8, 8))
    with pytest.raises(UserError, match=r"are 4x2x2 with 3x5 embeddings, .* needs 4x2x2 with 16x128 embeddings"):
        prepare(tmp_path, embeds_shape=(16, 128))
    prepare(tmp_path, pooled_shape=(6,))
    with pytest.raises(UserError, match=r"with 3x5 embeddings and 6 pooled .* needs .* and 7 pooled embeddings"):
        prepare(tmp_path, pooled_shape=(7,))


def test_pairs_of_another_pipeline_are_found_before_training(tmp_path):
    collect(tmp_path, SIZES)
    prepare(tmp_path, pipeline=CONFIG["pipeline"])
    with pytest.raises(UserError, match=r"pipeline\.name=tiny, but this run has pipeline\.name=sdxl"):
        prepare(tmp_path, pipeline={"name": "sdxl", "steps": 10})


def test_a_set_that_is_too_small_is_refused(tmp_path):
    collect(tmp_path / "some", SIZES)
    with pytest.raises(UserError, match="too few for one training batch of 100"):
        prepare(tmp_path / "some", batch_size=100)
    with pytest.raises(UserError, match="0 validation pairs"):
        prepare(tmp_path / "some", val_fraction=0.0)
    with pytest.raises(UserError, match="0 training"):
        prepare(tmp_path / "some", val_fraction=1.0)


def test_every_rank_needs_a_validation_batch(tmp_path):
    collect(tmp_path, SIZES)
    data = datamodule(tmp_path, batch_size=10)
    data.setup("fit")
    data.trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", logger=False)
    with pytest.raises(UserError, match="one validation batch on each of 2 ranks"):
        data.setup("fit")


def test_a_set_of_rejected_pairs_is_refused(tmp_path):
    ShardWriter(tmp_path, CONFIG).write(0, [make_pair(0, accepted=False)])
    with pytest.raises(UserError, match="no accepted pairs"):
        prepare(tmp_path)
