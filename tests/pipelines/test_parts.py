"""What replaces parts of a pipeline: it fits as a whole, or is refused in one line."""

import logging
import shutil

import diffusers
import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from golden_noise.errors import UserError
from golden_noise.pipelines.flux import FluxPipeline
from golden_noise.pipelines.hunyuan_dit import HunyuanDiTPipeline
from golden_noise.pipelines.sdxl import SDXLPipeline
from golden_noise.pipelines.stable_diffusion import SDPipeline
from golden_noise.pipelines.stable_diffusion_3 import SD3Pipeline

SETTINGS = {"height": 32, "width": 32, "steps": 2, "guidance": 1.0}
FAMILIES = {"tiny_sd": SDPipeline, "tiny_sdxl": SDXLPipeline, "tiny_sd3": SD3Pipeline, "tiny_flux": FluxPipeline}


def load(folder, kind=SDXLPipeline, **options):
    return kind.load(str(folder), device="cpu", **SETTINGS | options)


def refusal(folder, kind=SDXLPipeline, **options) -> str:
    with pytest.raises(UserError) as error:
        load(folder, kind, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.values(), other.values(), strict=True))


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


KARRAS = [kind.name for kind in diffusers.schedulers.KarrasDiffusionSchedulers if kind.name != "EDMEulerScheduler"]


@pytest.mark.parametrize(
    "name", [*KARRAS, "LCMScheduler", "TCDScheduler", "SASolverScheduler", "DDIMParallelScheduler"]
)
def test_the_usual_schedulers_sample(tiny_sdxl, name):
    if name == "DPMSolverSDEScheduler":
        pytest.importorskip("torchsde")
    pipeline = load(tiny_sdxl, scheduler={"name": name}, steps=4)
    images = pipeline.sample(pipeline.encode(["a circle"]), pipeline.draw_noise([0]))
    assert images.isfinite().all()


def adapters(model, targets):
    """Tensors of random adapters for a model, in the names of diffusers."""
    torch.manual_seed(1)
    config = LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
    model.add_adapter(config)
    return convert_state_dict_to_diffusers(get_peft_model_state_dict(model))


@pytest.fixture(scope="module")
def layers(tiny_sdxl):
    """Adapters for a U-Net and a text encoder, by part."""
    pipe = diffusers.StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)
    return {
        "unet": adapters(pipe.unet, ["to_q", "to_v"]),
        "text_encoder": adapters(pipe.text_encoder, ["q_proj", "v_proj"]),
        "text_encoder_2": adapters(pipe.text_encoder_2, ["q_proj"]),
    }


@pytest.fixture
def lora(layers, tmp_path):
    """Writes a file with adapters for some parts, and gives the option that names it."""

    def write(*parts, rename=None):
        tensors = {f"{part}.{name}": tensor for part in parts for name, tensor in layers[part].items()}
        tensors = {rename(i, name) if rename else name: x for i, (name, x) in enumerate(sorted(tensors.items()))}
        save_file(tensors, tmp_path / "w.safetensors")
        return {"source": str(tmp_path), "weight_name": "w.safetensors"}

    return write


def test_a_unets_adapters_are_merged_without_a_word(tiny_sdxl, lora, caplog):
    with caplog.at_level(logging.WARNING):
        logging.getLogger("diffusers").propagate = True
        changed = load(tiny_sdxl, lora=lora("unet"))
    assert not [record.getMessage() for record in caplog.records if "LoRA" in record.getMessage()]
    assert not same(changed.pipe.unet.state_dict(), load(tiny_sdxl).pipe.unet.state_dict())


@pytest.mark.parametrize(
    "parts", [("unet", "text_encoder", "text_encoder_2"), ("text_encoder",), ("unet", "text_encoder_2")]
)
def test_adapters_change_the_models_that_they_are_for(tiny_sdxl, lora, parts):
    plain, changed = load(tiny_sdxl).pipe, load(tiny_sdxl, lora=lora(*parts)).pipe
    for name in ("unet", "text_encoder", "text_encoder_2"):
        before, after = getattr(plain, name).state_dict(), getattr(changed, name).state_dict()
        assert before.keys() == after.keys()
        assert same(before, after) == (name not in parts)


@pytest.mark.parametrize("kept", [4, 1, -1])
def test_adapters_of_blocks_that_do_not_exist(tiny_sdxl, lora, layers, kept):
    """From a file that fits nearly nothing to one with a single stray tensor."""
    count = len(layers["unet"])
    stray = count - kept if kept > 0 else 1

    def rename(i, name):
        return name.replace("_blocks.", "_blocks.7") if i < stray else name

    message = refusal(tiny_sdxl, lora=lora("unet", rename=rename))
    assert f"{stray} of {count} tensors of w.safetensors fit nothing in this pipeline, such as unet." in message


def test_adapters_of_a_part_that_does_not_exist(tiny_sdxl, lora):
    def rename(_, name):
        return name.replace("text_encoder_2.", "text_encoder_3.")

    message = refusal(tiny_sdxl, lora=lora("unet", "text_encoder_2", rename=rename))
    assert "fit nothing in this pipeline, such as text_encoder_3." in message


def test_adapters_in_kohyas_names(tiny_sdxl, lora, layers, tmp_path):
    tensors = {}
    for name, tensor in layers["unet"].items():
        module, _, end = name.partition(".lora")
        end = {"_A.weight": "lora_down.weight", "_B.weight": "lora_up.weight"}.get(end, end.lstrip("."))
        end = end.replace("down.weight", "lora_down.weight") if end == "down.weight" else end
        end = end.replace("up.weight", "lora_up.weight") if end == "up.weight" else end
        tensors[f"lora_unet_{module.replace('.', '_')}.{end}"] = tensor
    save_file(tensors, tmp_path / "kohya.safetensors")
    kohya = load(tiny_sdxl, lora={"source": str(tmp_path), "weight_name": "kohya.safetensors"})
    assert same(kohya.pipe.unet.state_dict(), load(tiny_sdxl, lora=lora("unet")).pipe.unet.state_dict())


def test_adapters_with_scales_that_would_be_dropped(tiny_sdxl, lora, tmp_path):
    option = lora("unet")
    tensors = load_file(tmp_path / "w.safetensors")
    save_file(tensors | {"unet.down_blocks.1.dora_scale": torch.ones(3)}, tmp_path / "w.safetensors")
    assert "w.safetensors holds DoRA adapters" in refusal(tiny_sdxl, lora=option)


def test_adapters_that_are_no_numbers(tiny_sdxl, lora, layers, tmp_path):
    option = lora("unet")
    tensors = load_file(tmp_path / "w.safetensors")
    next(iter(tensors.values()))[0, 0] = torch.nan
    save_file(tensors, tmp_path / "w.safetensors")
    assert "w.safetensors makes weights that are not finite" in refusal(tiny_sdxl, lora=option)


def test_a_pipeline_that_takes_no_adapters_or_no_unet(tiny_hunyuan, tiny_sd3):
    source = {"source": ".", "weight_name": "w.safetensors"}
    assert "pipeline.model.lora" in refusal(tiny_hunyuan, HunyuanDiTPipeline, lora=source)
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
