"""Training with a real Trainer on the CPU, on pairs whose golden noise depends on noise and prompt."""

from functools import partial

import numpy as np
import pytest
import torch
from diffusers.optimization import get_cosine_schedule_with_warmup
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from golden_noise.npnet import NPNet
from golden_noise.tracking.run_logger import RunLogger
from golden_noise.training import ExplainedVariance, NPNetModule, SampleGrid, SaveNPNet

LATENT, EMBEDS = (4, 4, 4), (3, 8)
BACKBONE_ARGS = {"img_size": 4, "patch_size": 1, "in_chans": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}


class Pairs(Dataset):
    """A golden noise that is the noise, moved by a pattern of the prompt."""

    def __init__(self, count):
        generator = torch.Generator().manual_seed(0)
        self.noise = torch.randn(count, *LATENT, generator=generator)
        self.embeds = torch.randn(count, *EMBEDS, generator=generator)
        pattern = torch.randn(24, 64, generator=generator) / 24**0.5
        self.golden = self.noise + 0.5 * (self.embeds.flatten(1) @ pattern).view(-1, *LATENT)

    def __len__(self):
        return len(self.noise)

    def __getitem__(self, i):
        return {"noise": self.noise[i], "golden": self.golden[i], "embeds": self.embeds[i], "key": f"{i:09d}"}


def make_module(**options):
    torch.manual_seed(0)
    npnet = NPNet(LATENT, EMBEDS, backbone="vit_tiny_patch16_224", backbone_args=BACKBONE_ARGS)
    options = {"optimizer": partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.01), **options}
    return NPNetModule(npnet, **options)


def make_trainer(folder, callbacks=(), **options):
    options = {"max_epochs": 2, "log_every_n_steps": 1, "logger": CSVLogger(folder), **options}
    return Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        num_sanity_val_steps=0,
        **options,
    )


def loaders(train=8, val=6, batch_size=4):
    return DataLoader(Pairs(train), batch_size), DataLoader(Pairs(val), batch_size)


def weights_equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_overfits_two_batches(tmp_path):
    module = make_module()
    pairs = Pairs(8)
    with torch.no_grad():
        start = (module.npnet(pairs.noise, pairs.embeds) - pairs.golden).square().mean()
    make_trainer(tmp_path, max_epochs=150, logger=False).fit(module, DataLoader(pairs, 4))
    with torch.no_grad():
        end = (module.eval().npnet(pairs.noise, pairs.embeds) - pairs.golden).square().mean()
    assert end < 0.1 * start


def test_untrained_network_explains_nothing(tmp_path):
    (result,) = make_trainer(tmp_path).validate(make_module(), loaders()[1], verbose=False)
    assert result["val/explained"] == 0
    pairs = Pairs(6)
    assert result["val/loss"] == pytest.approx((pairs.noise - pairs.golden).square().mean().item())


def test_explained_is_the_formula_over_all_pairs(tmp_path):
    """The last batch is smaller than the others: a mean over batches would give another number."""
    module = make_module()
    torch.nn.init.normal_(module.npnet.residual_branch.conv_out.weight)
    (result,) = make_trainer(tmp_path).validate(module, loaders(val=7)[1], verbose=False)
    pairs = Pairs(7)
    with torch.no_grad():
        error = (module.npnet(pairs.noise, pairs.embeds) - pairs.golden).square().sum()
    move = (pairs.noise - pairs.golden).square().sum()
    assert result["val/explained"] == pytest.approx((1 - error / move).item(), rel=1e-5)
    assert result["val/loss"] == pytest.approx(error.item() / pairs.noise.numel(), rel=1e-5)


def test_explained_adds_up_over_ranks():
    """Ranks sum their states, as torchmetrics does when it synchronises."""
    noise, golden, predicted = torch.randn(3, 10, *LATENT).unbind()
    whole = ExplainedVariance()
    whole.update(predicted, golden, noise)
    ranks = [ExplainedVariance(), ExplainedVariance()]
    for metric, part in zip(ranks, (slice(3), slice(3, 10)), strict=True):
        metric.update(predicted[part], golden[part], noise[part])
    merged = ranks[0]
    for name, reduce in merged._reductions.items():
        setattr(merged, name, reduce(torch.stack([getattr(metric, name) for metric in ranks])))
    torch.testing.assert_close(merged.compute(), whole.compute())
    assert ExplainedVariance()(golden, golden, noise) == 1


def test_no_weight_decay_on_gates_biases_and_norms(tmp_path):
    module = make_module()
    decayed, kept = module.configure_optimizers().param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.01, 0)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    without = {names[id(parameter)] for parameter in kept["params"]}
    assert {"npnet.alpha", "npnet.beta", "npnet.residual_branch.backbone.norm.weight"} <= without
    assert without >= {name for name in names.values() if name.endswith("bias")}
    assert {names[id(parameter)] for parameter in decayed["params"]} == set(names.values()) - without


def test_logs(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.fit(make_module(), *loaders(train=12))
    logged = (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text().splitlines()[0]
    assert {"train/loss", "train/pairs_per_second", "val/loss", "val/explained"} <= set(logged.split(","))
    assert trainer.logged_metrics["train/pairs_per_second"] > 0


def resume_callbacks(folder, ema):
    checkpoint = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1, save_last=True)
    return [checkpoint, *([EMAWeightAveraging(use_buffers=False, decay=0.5)] if ema else [])]


@pytest.mark.parametrize("ema", [False, True])
def test_resumed_run_equals_uninterrupted_run(tmp_path, ema):
    scheduler = partial(get_cosine_schedule_with_warmup, num_warmup_steps=2)
    options = {"max_epochs": 3, "logger": False}
    whole = make_module(scheduler=scheduler)
    make_trainer(tmp_path, resume_callbacks(tmp_path, ema), **options).fit(whole, *loaders())
    assert whole.lr_schedulers().get_last_lr() == [0, 0]
    resumed = make_module(scheduler=scheduler)
    trainer = make_trainer(tmp_path, resume_callbacks(tmp_path / "resumed", ema), **options)
    trainer.fit(resumed, *loaders(), ckpt_path=tmp_path / "epoch=0.ckpt", weights_only=True)
    assert weights_equal(whole, resumed)
    assert not weights_equal(whole, make_module())


def test_checkpoints_hold_plain_values(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, save_last=True)
    make_trainer(tmp_path, [checkpoint]).fit(make_module(), *loaders())
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert not content.get("hyper_parameters")


def fit_and_save(folder, callbacks=()):
    checkpoint = ModelCheckpoint(folder, monitor="val/explained", mode="max")
    module = make_module(optimizer=partial(torch.optim.SGD, lr=0.5))
    trainer = make_trainer(folder, [SaveNPNet(folder), checkpoint, *callbacks], max_epochs=3)
    trainer.fit(module, *loaders())
    return module, torch.load(checkpoint.best_model_path, weights_only=True)["state_dict"]


@pytest.mark.parametrize("ema", [False, True])
def test_best_and_last_are_saved(tmp_path, ema):
    callbacks = [EMAWeightAveraging(use_buffers=False, decay=0.5)] if ema else []
    module, best_weights = fit_and_save(tmp_path, callbacks)
    assert weights_equal(NPNet.from_pretrained(tmp_path / "last"), module.npnet)
    best = NPNet.from_pretrained(tmp_path / "best")
    for name, weight in best.state_dict().items():
        assert torch.equal(weight, best_weights[f"npnet.{name}"])
    assert not list(tmp_path.glob(".*.tmp"))


def test_best_explains_what_its_checkpoint_says(tmp_path):
    """With averaged weights, too, the saved network is the one that was validated."""
    callbacks = [EMAWeightAveraging(use_buffers=False, decay=0.5)]
    checkpoint = ModelCheckpoint(tmp_path, monitor="val/explained", mode="max")
    trainer = make_trainer(tmp_path, [SaveNPNet(tmp_path), checkpoint, *callbacks], max_epochs=3)
    trainer.fit(make_module(), *loaders())
    best = NPNetModule(NPNet.from_pretrained(tmp_path / "best"), torch.optim.SGD)
    (result,) = make_trainer(tmp_path).validate(best, loaders()[1], verbose=False)
    assert result["val/explained"] == pytest.approx(checkpoint.best_model_score.item(), rel=1e-5)
    assert result["val/explained"] != 0


def test_saving_again_replaces_the_folders(tmp_path):
    fit_and_save(tmp_path)
    (tmp_path / "last" / "stale").touch()
    fit_and_save(tmp_path)
    assert not (tmp_path / "last" / "stale").exists()


class ImageLogger(CSVLogger, RunLogger):
    """Keeps the grids it is given."""

    def __init__(self, folder):
        super().__init__(folder)
        self.images = []

    def log_grid(self, key, grid, step, caption):
        self.images.append(grid)

    def log_table(self, key, columns, rows):
        raise NotImplementedError

    def log_figures(self, figures):
        raise NotImplementedError

    def finish(self):
        raise NotImplementedError


def draw(npnet):
    """Images of the noise itself; draws random numbers, as samplers do."""
    noise, embeds = Pairs(2).noise, Pairs(2).embeds
    torch.rand(5)
    latents = noise if npnet is None else npnet(noise, embeds)
    return torch.sigmoid(latents[:, :3])


class Dropout(NPNetModule):
    """Its training depends on the random state and on the training mode."""

    def forward(self, batch):
        return super().forward(batch | {"embeds": torch.nn.functional.dropout(batch["embeds"], 0.5, self.training)})


def train_with(folder, callbacks, logger):
    seed_everything(0)
    torch.manual_seed(0)
    module = Dropout(make_module().npnet, partial(torch.optim.SGD, lr=0.5))
    make_trainer(folder, callbacks, max_epochs=4, logger=logger).fit(module, *loaders())
    return module


def test_sample_grid_leaves_training_as_it_was(tmp_path):
    logger = ImageLogger(tmp_path)
    drawn = train_with(tmp_path, [SampleGrid(draw, tmp_path / "samples", every_n_epochs=2)], logger)
    plain = train_with(tmp_path, [], False)
    assert weights_equal(drawn, plain)
    names = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert names == ["epoch=0000.png", "epoch=0002.png"]
    assert len(logger.images) == 2


def test_sample_grid_shows_standard_left_and_golden_right(tmp_path):
    module = make_module(optimizer=partial(torch.optim.SGD, lr=0.5))
    make_trainer(tmp_path, [SampleGrid(draw, tmp_path)], max_epochs=1).fit(module, *loaders())
    grid = Image.open(tmp_path / "epoch=0000.png")
    assert grid.size == (8, 8)
    standard, golden = grid.crop((0, 0, 4, 8)), grid.crop((4, 0, 8, 8))
    for column, npnet in ((standard, None), (golden, module.npnet.eval())):
        with torch.no_grad():
            expected = torch.cat([*draw(npnet)], dim=1).permute(1, 2, 0) * 255
        assert abs(expected.numpy() - np.asarray(column)).max() <= 1
    assert standard.tobytes() != golden.tobytes()


def test_sample_grid_of_images_that_are_not_finite_is_left_out(tmp_path, capsys):
    def overflow(npnet):
        return draw(npnet) * torch.nan

    make_trainer(tmp_path, [SampleGrid(overflow, tmp_path / "samples")], max_epochs=1).fit(make_module(), *loaders())
    assert not (tmp_path / "samples").exists()
    assert "images are not finite" in capsys.readouterr().err
