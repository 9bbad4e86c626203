"""The training of the miniature, a few steps of it."""

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from omegaconf import OmegaConf

from experiments.miniature import train
from golden_noise.metrics.pickscore import PickScore
from golden_noise.pipelines.sdxl import SDXLPipeline
from golden_noise.shapes import models
from golden_noise.shapes.scenes import sample_batch

STAGES = ("vae", "decoder", "denoiser", "reward")
TINY = ["num_threads=1", "latents=250", *(f"{stage}.{key}" for stage in STAGES for key in ("steps=2", "batch_size=4"))]
SETTINGS = OmegaConf.create({"steps": 53, "batch_size": 2, "lr": 1e-3, "prompt_dropout": 0.1, "ema": 0.9, "noise": 0.1})


class StoppedError(Exception):
    pass


class StoppedStage(train.DenoiserStage):
    """Stops after the checkpoint of step 50, as a killed process would."""

    def on_train_batch_start(self, *args):
        super().on_train_batch_start(*args)
        if self.global_step == 52:
            raise StoppedError


def denoiser(kind: type = train.DenoiserStage, **settings) -> train.DenoiserStage:
    """The stage with a much smaller UNet."""
    torch.manual_seed(0)
    pipe = models.build_pipeline()
    small = {"block_out_channels": (8, 8, 16), "attention_head_dim": 2, "norm_num_groups": 4}
    pipe.register_modules(unet=UNet2DConditionModel.from_config(pipe.unet.config, **small))
    stored = {"latents": torch.randn(20, 4, 8, 8), "captions": torch.arange(20)}
    return kind(OmegaConf.merge(SETTINGS, settings), 0, pipe, stored)


def test_batches_depend_on_seed_and_step_alone():
    whole = list(train.SceneBatches((0, 1), 3, range(4)))
    rest = list(train.SceneBatches((0, 1), 3, range(2, 4)))
    for (pixels, captions), (again, same) in zip(whole[2:], rest, strict=True):
        assert torch.equal(pixels, again)
        assert torch.equal(captions, same)
    other, _ = next(iter(train.SceneBatches((0, 2), 3, range(1))))
    assert not torch.equal(whole[0][0], other)


def test_batches_are_drawn_scenes_between_minus_one_and_one():
    ((pixels, captions),) = train.SceneBatches((5, 0), 6, range(1))
    asked, images = sample_batch(np.random.default_rng((5, 0, 0)), 6)
    assert torch.equal(pixels, torch.from_numpy(images) * 2 - 1)
    assert [train.CAPTIONS[i] for i in captions] == [request.text for request in asked]


def test_latents_stay_with_their_captions():
    stored = {"latents": torch.arange(9.0)[:, None, None, None].expand(9, 4, 8, 8), "captions": torch.arange(9)}
    for latents, captions in train.LatentBatches(stored, (0, 2), 5, range(3)):
        assert torch.equal(latents[:, 0, 0, 0].long(), captions)


def test_equal_captions_in_a_batch_are_no_mistakes():
    torch.manual_seed(0)
    stage = train.RewardStage(OmegaConf.create({"batch_size": 2}), 0)
    images = torch.rand(1, 3, 32, 32).expand(2, -1, -1, -1) * 2 - 1
    # Twice the same image with the same caption: each row is as likely as the other, so the loss is log 2.
    assert stage.loss(images, torch.tensor([5, 5])).item() == pytest.approx(np.log(2), abs=1e-5)


def test_decoder_stage_leaves_the_encoder_alone():
    stage = train.DecoderStage(SETTINGS, 0, models.build_vae())
    pixels, captions = next(iter(stage.batches(range(1))))
    stage.loss(pixels, captions).backward()
    assert all(parameter.grad is None for parameter in stage.vae.encoder.parameters())
    assert all(parameter.grad is not None for parameter in stage.vae.decoder.parameters())


def test_dropped_prompts_look_like_no_prompt(tiny_sdxl):
    sdxl = SDXLPipeline.load(str(tiny_sdxl), device="cpu", height=32, width=32, steps=2, guidance=1.0)
    net, text, noise = train.Conditional(sdxl.pipe), "a red circle", torch.randn(1, 4, 8, 8)
    tokens = sdxl.pipe.tokenizer([text], padding="max_length", return_tensors="pt").input_ids
    prompt = sdxl.encode([text])
    for keep, guidance in ((1.0, 1), (0.0, 0)):
        with torch.no_grad():
            trained_on = net(noise, torch.tensor([801]), tokens, torch.tensor([keep]))
        torch.testing.assert_close(trained_on, sdxl.predict(noise, 801, prompt, guidance), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_interrupted_training_ends_like_one_in_one_go(tmp_path):
    whole = train.fit(denoiser(), tmp_path / "whole")
    with pytest.raises(StoppedError):
        train.fit(denoiser(StoppedStage), tmp_path / "parts")
    assert (tmp_path / "parts/last.ckpt").exists()
    resumed = train.fit(denoiser(), tmp_path / "parts")
    assert resumed.global_step == whole.global_step == 53
    assert resumed.average.n_averaged == whole.average.n_averaged == 53
    found, untrained = resumed.state_dict(), denoiser().state_dict()
    for name, expected in whole.state_dict().items():
        torch.testing.assert_close(found[name], expected, atol=1e-6, rtol=0, msg=name)
    assert any(not torch.equal(value, untrained[name]) for name, value in found.items())


def test_average_is_that_of_the_weights_after_each_step(tmp_path):
    stage = denoiser(steps=2)
    history = []
    stage.on_train_batch_end = lambda *args: history.append(stage.net.unet.conv_in.weight.detach().clone())
    train.fit(stage, tmp_path)
    expected = 0.9 * history[0] + 0.1 * history[1]
    torch.testing.assert_close(stage.average.module.unet.conv_in.weight, expected, atol=1e-6, rtol=0)
    assert not torch.equal(history[0], history[1])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder of a training of two steps per stage."""
    out = tmp_path_factory.mktemp("trained")
    train.main([f"out={out}", *TINY])
    return out


@pytest.mark.slow
def test_training_ends_with_usable_weights(trained):
    sdxl = SDXLPipeline.load(str(trained / "pipeline"), device="cpu", height=32, width=32, steps=2, guidance=2.0)
    images = sdxl.sample(sdxl.encode(["a red circle"]), torch.randn(1, 4, 8, 8))
    assert images.shape == (1, 3, 32, 32)
    assert images.isfinite().all()
    assert PickScore(str(trained / "reward"), device="cpu").score(["a red circle"], images).isfinite().all()


@pytest.mark.slow
def test_latents_have_unit_scale(trained):
    sdxl = SDXLPipeline.load(str(trained / "pipeline"), device="cpu", height=32, width=32, steps=2, guidance=2.0)
    pixels, _ = next(iter(train.SceneBatches((1, 1), 100, range(1))))
    with torch.no_grad():
        latents = sdxl.pipe.vae.encode(pixels).latent_dist.mean * sdxl.pipe.vae.config.scaling_factor
    assert latents.std().item() == pytest.approx(1, abs=0.1)


@pytest.mark.slow
def test_finished_stages_are_skipped(trained):
    files = {path: path.stat().st_mtime_ns for path in trained.rglob("*.safetensors")}
    assert len(files) >= 6
    train.main([f"out={trained}", *TINY])
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*.safetensors")} == files
