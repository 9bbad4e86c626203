import dataclasses
import os
from pathlib import Path

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from golden_noise.errors import UserError
from golden_noise.pairs import NoisePairDataModule, ShardWriter
from golden_noise.pipelines.prompt_embedding import PromptEmbedding

from .factory import CONFIG, EMBEDS_SHAPE, LATENT_SHAPE, POOLED_SHAPE, collect, make_pair

SIZES = [9, 4, 12, 6]


class Recorder(LightningModule):
    """Learns one number and remembers which pairs it saw."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.seen: list[tuple[str, ...]] = []
        self.validated: list[tuple[str, ...]] = []

    def training_step(self, batch, batch_idx):
        assert batch["noise"].dtype == batch["embeds"].dtype == self.dtype
        self.seen.append(tuple(batch["key"]))
        return (self.scale * batch["noise"] - batch["golden"]).square().mean()

    def validation_step(self, batch, batch_idx):
        self.validated.append(tuple(batch["key"]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def datamodule(folder: Path, **kwargs) -> NoisePairDataModule:
    options = {"batch_size": 4, "val_fraction": 0.3, "shuffle_shards": 2, "num_workers": 0}
    shapes = {"latent_shape": LATENT_SHAPE, "embeds_shape": EMBEDS_SHAPE}
    return NoisePairDataModule(folder, **options | shapes | kwargs)


def fit(folder: Path, callbacks=(), ckpt_path=None, data=None, **trainer_options) -> Recorder:
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
    trainer.fit(model, datamodule=datamodule(folder, **data or {}), ckpt_path=ckpt_path)
    return model


def test_it_tells_the_prompts_of_each_side(tmp_path):
    collect(tmp_path, SIZES)
    data = datamodule(tmp_path)
    data.setup("fit")
    train, val = (data.prompts(split, 1_000) for split in ("train", "val"))
    assert train and val and not {*train} & {*val}
    assert all(text.startswith("a photo of object ") for text in train + val)
    assert len({*train, *val}) == len(train + val)
    assert data.prompts("val", 2) == val[:2] and len(val) > 2


def test_epochs_differ_and_a_rerun_repeats_them(tmp_path):
    collect(tmp_path, SIZES)
    runs = [fit(tmp_path), fit(tmp_path), fit(tmp_path, data={"num_workers": 2})]
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


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_resumed_run_with_workers_and_accumulation_goes_on_with_the_next_batch(tmp_path, workers, accumulate):
    collect(tmp_path / "pairs", SIZES)
    options = {"data": {"num_workers": workers, "batch_size": 2}, "accumulate_grad_batches": accumulate}
    saver = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=2)
    whole = fit(tmp_path / "pairs", callbacks=[saver], **options)
    steps = len(whole.seen) // 3
    resumed = fit(tmp_path / "pairs", ckpt_path=tmp_path / "step=4.ckpt", **options)
    # The last batches of an epoch make a step of their own, however few they are.
    epochs, rest = divmod(4, -(-steps // accumulate))
    assert resumed.seen == whole.seen[epochs * steps + rest * accumulate :] != whole.seen
    assert torch.equal(resumed.scale, whole.scale)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "16-true", "64-true"])
def test_batches_come_in_the_modules_dtype(tmp_path, precision):
    collect(tmp_path, SIZES)
    assert fit(tmp_path, precision=precision, max_epochs=1).seen


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
    with pytest.raises(UserError, match=r"pairs-000002\.tar has 1000 of \d+ bytes: delete it.*repeat the collection"):
        prepare(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=r"pairs-000002\.tar is missing.*repeat the collection"):
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
    data = datamodule(tmp_path, batch_size=1, val_fraction=0.1)
    data.setup("fit")
    assert len(data.val_dataloader()) == data.val_dataloader().num_pairs == 1
    data.trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", logger=False)
    with pytest.raises(UserError, match="one validation batch on each of 2 ranks"):
        data.setup("fit")


def test_a_set_of_rejected_pairs_is_refused(tmp_path):
    ShardWriter(tmp_path, CONFIG).write(0, [make_pair(0, accepted=False)])
    with pytest.raises(UserError, match="no accepted pairs"):
        prepare(tmp_path)


def test_pairs_of_a_url_are_trained_on(tmp_path):
    folder = tmp_path / "pairs"
    collect(folder, SIZES)
    url = f"pipe:cat {folder}/pairs-{{000000..000003}}.tar"
    refuse = {"collect": lambda: pytest.fail("shards that were named are not collected")}
    assert fit(f"{folder}/pairs-{{000000..000003}}.tar", data=refuse).seen == fit(folder).seen
    assert fit(url, data={"cache": tmp_path / "cache"}).seen == fit(url).seen == fit(folder).seen
    assert len(list((tmp_path / "cache").glob("*.tar"))) == len(SIZES)


class Encoder:
    """Embeddings that depend on the prompt alone, as a pipeline's `encode` makes them; counts prompts."""

    def __init__(self):
        self.asked: list[str] = []

    @torch.inference_mode()
    def __call__(self, prompts):
        self.asked += prompts
        pairs = [make_pair(int(prompt.split()[-1]), text=prompt) for prompt in prompts]
        return PromptEmbedding(torch.stack([p.embeds for p in pairs]), pooled=torch.stack([p.pooled for p in pairs]))


@pytest.mark.parametrize("capacity", [0, 5, 1000])
def test_encoded_embeddings_are_the_stored_ones(tmp_path, capacity):
    collect(tmp_path, SIZES)
    encoder = Encoder()
    options = {"pooled_shape": POOLED_SHAPE, "encode": encoder, "embeds_cache": capacity}
    loaders = []
    for embeddings in ("stored", "encode"):
        data = datamodule(tmp_path, embeddings=embeddings, **options)
        data.setup("fit")
        loaders.append([data.on_after_batch_transfer(batch, 0) for batch in [*data.train_dataloader()] * 2])
    for stored, encoded in zip(*loaders, strict=True):
        assert stored["key"] == encoded["key"]
        assert all(torch.equal(stored[name], encoded[name]) for name in ("noise", "golden", "embeds", "pooled"))
        assert not encoded["embeds"].is_inference()  # such tensors cannot take part in training
    prompts = len({prompt for batch in loaders[1] for prompt in batch["prompt"]})
    assert len(encoder.asked) == 2 * prompts - min(capacity, prompts)


def test_pairs_without_embeddings_need_an_encoder(tmp_path):
    writer = ShardWriter(tmp_path, CONFIG)
    writer.write(0, [dataclasses.replace(make_pair(i), embeds=None, pooled=None) for i in range(30)])
    with pytest.raises(UserError, match=r"4x2x2 with no embeddings, .* encode prompts with data\.embeddings=encode"):
        prepare(tmp_path)
    encoder = Encoder()
    assert fit(tmp_path, data={"embeddings": "encode", "encode": encoder}, max_epochs=1).seen and encoder.asked
    with pytest.raises(UserError, match=r"data\.embeddings=nonsense must be stored or encode"):
        prepare(tmp_path, embeddings="nonsense")
