"""What replaces parts of a pipeline: it fits as a whole, or is refused in one line."""

import shutil

import diffusers
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from golden_noise.errors import UserError
from golden_noise.pipelines.flux import FluxPipeline
from golden_noise.pipelines.hunyuan_dit import HunyuanDiTPipeline
from golden_noise.pipelines.parts import check_scheduler
from golden_noise.pipelines.sdxl import SDXLPipeline
from golden_noise.pipelines.stable_diffusion import SDPipeline
from golden_noise.pipelines.stable_diffusion_3 import SD3Pipeline

from .loaded import load, refusal, same

FAMILIES = {"tiny_sd": SDPipeline, "tiny_sdxl": SDXLPipeline, "tiny_sd3": SD3Pipeline, "tiny_flux": FluxPipeline}


FOREIGN = [
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "FlowMatchLCMScheduler",
    "DDIMInverseScheduler",
    "DPMSolverMultistepInverseScheduler",
    "RePaintScheduler",
    "CogVideoXDPMScheduler",
    "EDMEulerScheduler",
    "ScoreSdeVeScheduler",
    "UnCLIPScheduler",
    "VQDiffusionScheduler",
    "AmusedScheduler",
]


@pytest.mark.parametrize("name", FOREIGN)
def test_schedulers_that_cannot_sample_a_diffusion_model(tiny_sdxl, name):
    assert f"pipeline.model.scheduler.name={name} " in refusal(tiny_sdxl, scheduler={"name": name})


def test_one_that_samples_flow_by_its_settings(tiny_sdxl):
    message = refusal(tiny_sdxl, scheduler={"name": "UniPCMultistepScheduler", "use_flow_sigmas": True})
    assert "is a diffusion model: choose another, such as EulerDiscreteScheduler" in message


@pytest.mark.parametrize("source", ["tiny_sd3", "tiny_flux"])
@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_schedulers_that_cannot_sample_a_flow(source, name, request):
    message = refusal(request.getfixturevalue(source), FAMILIES[source], scheduler={"name": name})
    assert f"{name} cannot sample this pipeline, which is a flow matching model" in message
    assert "FlowMatchEulerDiscreteScheduler" in message


def test_flux_gives_its_levels_which_not_every_flow_scheduler_takes(tiny_flux):
    assert "cannot sample" in refusal(tiny_flux, FluxPipeline, scheduler={"name": "FlowMatchHeunDiscreteScheduler"})


def test_a_folders_own_scheduler_is_checked_too(tiny_sdxl, tmp_path):
    folder = shutil.copytree(tiny_sdxl, tmp_path / "copy")
    pipe = diffusers.StableDiffusionXLPipeline.from_pretrained(folder)
    pipe.scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    pipe.save_pretrained(folder)
    assert "FlowMatchEulerDiscreteScheduler cannot sample this pipeline" in refusal(folder)


OTHERS = ("EDMEulerScheduler", "DPMSolverSDEScheduler")  # of other models; with a package that is no dependency
KARRAS = [kind.name for kind in diffusers.schedulers.KarrasDiffusionSchedulers if kind.name not in OTHERS]


@pytest.mark.parametrize(
    "name", [*KARRAS, "LCMScheduler", "TCDScheduler", "SASolverScheduler", "DDIMParallelScheduler"]
)
def test_the_usual_schedulers_sample(tiny_sdxl, name):
    pipeline = load(tiny_sdxl, scheduler={"name": name}, steps=4)
    images = pipeline.sample(pipeline.encode(["a circle"]), pipeline.draw_noise([0]))
    assert images.isfinite().all()


def whole_numbers(file):
    save_file({name: tensor.to(torch.int8) for name, tensor in load_file(file).items()}, file, {"format": "pt"})


def test_whole_numbers_are_refused_where_floats_belong(tiny_sdxl, lora, tmp_path):
    """They would be cast without a word."""
    folder = shutil.copytree(tiny_sdxl, tmp_path / "copy")
    for part in ("vae", "unet"):
        whole_numbers(folder / part / "diffusion_pytorch_model.safetensors")
    option = lora("unet")
    whole_numbers(tmp_path / "w.safetensors")
    unet = {"source": str(folder / "unet"), "weight_name": "diffusion_pytorch_model.safetensors"}
    for parts in ({"unet": unet}, {"vae": {"source": str(folder / "vae")}}, {"loras": option}):
        assert "holds I8 and no floating point numbers" in refusal(tiny_sdxl, **parts)
    assert "unet/diffusion_pytorch_model.safetensors is damaged" in refusal(folder)


def test_a_denoisers_weights_that_are_no_numbers(tiny_sdxl, tmp_path):
    tensors = load_file(tiny_sdxl / "unet/diffusion_pytorch_model.safetensors")
    tensors["conv_in.bias"][0] = torch.inf
    save_file(tensors, tmp_path / "w.safetensors")
    message = refusal(tiny_sdxl, unet={"source": str(tmp_path), "weight_name": "w.safetensors"})
    assert "w.safetensors is damaged: conv_in.bias is not finite" in message


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "PNDMScheduler"}, "PNDMScheduler cannot be used here with pipeline.steps=2: "),
        ({"name": "DDIMScheduler", "prediction_type": "bogus"}, "prediction_type given as bogus"),
        ({"name": "EulerDiscreteScheduler", "prediction_type": "bogus"}, "cannot be used here"),
        ({"name": "DDIMScheduler", "timestep_spacing": "bogus"}, "cannot be used here"),
        ({"name": "DDIMScheduler", "beta_schedule": "bogus"}, "cannot be used here"),
        ({"name": "DDIMScheduler", "beta_start": "x"}, "cannot be used here"),
        ({"name": "DDIMScheduler", "beta_start": 5.0}, "no finite numbers"),
        ({"name": "DDIMScheduler", "num_train_timesteps": 1}, "cannot be used here"),
        ({"name": "DDIMScheduler", "bogus": 1}, "scheduler.bogus: a DDIMScheduler has no such argument"),
    ],
)
def test_schedulers_are_tried_with_the_steps_of_the_run(tiny_sdxl, settings, words):
    assert words in refusal(tiny_sdxl, scheduler=settings)


@pytest.mark.parametrize("source", ["tiny_sd3", "tiny_flux"])
def test_schedulers_of_flow_are_tried_too(source, request):
    settings = {"name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 0}
    assert "cannot be used here" in refusal(request.getfixturevalue(source), FAMILIES[source], scheduler=settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "FlowMatchHeunDiscreteScheduler"},
        {"name": "FlowMatchLCMScheduler"},
        {"name": "UniPCMultistepScheduler", "use_flow_sigmas": True, "prediction_type": "flow_prediction"},
        {"name": "DPMSolverMultistepScheduler", "use_flow_sigmas": True, "prediction_type": "flow_prediction"},
    ],
)
def test_the_usual_schedulers_sample_flow(tiny_sd3, settings):
    pipeline = load(tiny_sd3, SD3Pipeline, scheduler=settings, steps=3)
    images = pipeline.sample(pipeline.encode(["a circle"]), pipeline.draw_noise([0]))
    assert images.isfinite().all()


@pytest.mark.parametrize("content", ["[]", "{", "", "version https://git-lfs.github.com/spec/v1\noid"])
@pytest.mark.parametrize("file", ["unet/config.json", "model_index.json", "unet/diffusion_pytorch_model.safetensors"])
def test_a_folder_with_a_damaged_file_is_refused_with_its_name(tiny_sdxl, tmp_path, file, content):
    folder = shutil.copytree(tiny_sdxl, tmp_path / "copy")
    (folder / file).write_text(content)
    message = refusal(folder)
    assert str(folder) in message
    assert file in message


@pytest.mark.parametrize("content", ["[]", "", "version https://git-lfs.github.com/spec/v1\noid"])
@pytest.mark.parametrize("file", ["config.json", "diffusion_pytorch_model.safetensors"])
def test_a_vae_with_a_damaged_file_is_refused_with_its_name(tiny_sdxl, tmp_path, file, content):
    folder = shutil.copytree(tiny_sdxl / "vae", tmp_path / "vae")
    (folder / file).write_text(content)
    message = refusal(tiny_sdxl, vae={"source": str(folder)})
    assert message.startswith("pipeline.model.vae: ") and file in message


def test_a_damaged_file_that_nobody_reads_does_no_harm(tiny_sdxl, tmp_path):
    folder = shutil.copytree(tiny_sdxl, tmp_path / "copy")
    for name in ("diffusion_pytorch_model.bin", "diffusion_pytorch_model.non_ema.safetensors"):
        (folder / "unet" / name).write_text("version https://git-lfs.github.com/spec/v1\noid")
    assert same(load(folder).pipe.unet.state_dict(), load(tiny_sdxl).pipe.unet.state_dict())


def test_the_trial_of_a_scheduler_leaves_the_random_state(tiny_sdxl):
    pipe = load(tiny_sdxl, scheduler={"name": "EulerAncestralDiscreteScheduler"}).pipe
    state = torch.get_rng_state()
    check_scheduler(pipe, flow=False, steps=3)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_scheduler_that_needs_more_steps_is_taken_with_these(tiny_sdxl):
    pipeline = load(tiny_sdxl, scheduler={"name": "PNDMScheduler"}, steps=5)
    assert pipeline.sample(pipeline.encode(["a circle"]), pipeline.draw_noise([0])).isfinite().all()


def test_more_steps_than_levels_are_refused_by_searches(tiny_sdxl):
    pipeline = load(tiny_sdxl, scheduler={"name": "DDIMScheduler", "num_train_timesteps": 10})
    with pytest.raises(UserError, match="cannot give a search 11 steps"):
        pipeline.schedule.timesteps(11)


def test_a_pipeline_that_takes_no_adapters_or_no_unet(tiny_hunyuan, tiny_sd3):
    source = {"source": ".", "weight_name": "w.safetensors"}
    assert "pipeline.model.loras.w:" in refusal(tiny_hunyuan, HunyuanDiTPipeline, loras={"w": source})
    assert "pipeline.model.unet" in refusal(tiny_sd3, SD3Pipeline, unet=source)


@pytest.mark.parametrize("fault", ["missing", "left over", "shape"])
def test_a_denoisers_weights_that_do_not_fit_are_named(tiny_sdxl, tmp_path, fault):
    tensors = load_file(tiny_sdxl / "unet/diffusion_pytorch_model.safetensors")
    if fault == "missing":
        del tensors["conv_in.bias"]
    else:
        tensors["other.bias" if fault == "left over" else "conv_in.bias"] = torch.zeros(3)
    save_file(tensors, tmp_path / "w.safetensors")
    message = refusal(tiny_sdxl, unet={"source": str(tmp_path), "weight_name": "w.safetensors"})
    assert "w.safetensors does not fit the denoiser: 1 of" in message
    assert ("other.bias" if fault == "left over" else "conv_in.bias") in message


@pytest.mark.parametrize("source", FAMILIES)
def test_another_vae_draws_other_images(source, request, tmp_path):
    folder, kind = request.getfixturevalue(source), FAMILIES[source]
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    with torch.no_grad():
        vae.decoder.conv_out.bias += 0.5
    vae.save_pretrained(tmp_path / "vae")
    plain, other = load(folder, kind), load(folder, kind, vae={"source": str(tmp_path / "vae")})
    prompt, noise = plain.encode(["a red circle"]), plain.draw_noise([0])
    found, expected = other.sample(prompt, noise), (plain.sample(prompt, noise) + 0.25)
    inside = (expected > 0.26) & (expected < 0.99)
    torch.testing.assert_close(found[inside], expected[inside], atol=1e-4, rtol=0)
    assert same(other.pipe.vae.state_dict(), vae.state_dict())


def test_a_vae_in_the_dtype_of_the_pipeline(tiny_sdxl):
    pipeline = load(tiny_sdxl, dtype="bfloat16", vae={"source": str(tiny_sdxl / "vae")})
    assert pipeline.pipe.vae.dtype == torch.bfloat16


def test_vaes_that_cannot_be_used(tiny_sdxl, tiny_sd3, tmp_path):
    assert "pipeline.model.vae" in refusal(tiny_sdxl, vae={"source": str(tmp_path / "none")})
    assert "pipeline.model.vae" in refusal(tiny_sdxl, vae={"source": str(tmp_path)})
    assert "nobody/none: HF_HUB_OFFLINE" in refusal(tiny_sdxl, vae={"source": "nobody/none"})
    message = refusal(tiny_sdxl, vae={"source": str(tiny_sd3 / "vae")})
    assert "made for other latents" in message
    folder = shutil.copytree(tiny_sdxl / "vae", tmp_path / "vae")
    file = folder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["decoder.conv_out.bias"]
    save_file(tensors, file, {"format": "pt"})
    assert "lacks 1 of its weights" in refusal(tiny_sdxl, vae={"source": str(folder)})
