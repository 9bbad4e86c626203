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
from golden_noise.pipelines.lora import _made_up
from golden_noise.pipelines.parts import check_scheduler
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


OTHERS = ("EDMEulerScheduler", "DPMSolverSDEScheduler")  # of other models; with a package that is no dependency
KARRAS = [kind.name for kind in diffusers.schedulers.KarrasDiffusionSchedulers if kind.name not in OTHERS]


@pytest.mark.parametrize(
    "name", [*KARRAS, "LCMScheduler", "TCDScheduler", "SASolverScheduler", "DDIMParallelScheduler"]
)
def test_the_usual_schedulers_sample(tiny_sdxl, name):
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


@pytest.mark.parametrize("kept", [4, 2, -2])
def test_adapters_of_blocks_that_do_not_exist(tiny_sdxl, lora, layers, kept):
    """From a file that fits nearly nothing to one with a single stray adapter."""
    count = len(layers["unet"])
    stray = count - kept if kept > 0 else 2

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


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
@pytest.mark.parametrize("lost", ["first", "second"])
def test_half_an_adapter_is_refused_and_not_made_up(tiny_sdxl, lora, layers, tmp_path, part, lost):
    """diffusers would merge the one half with random numbers, or fail with an index error."""
    option = lora(part)
    tensors = load_file(tmp_path / "w.safetensors")
    pair = sorted(tensors)[:2]
    gone = pair[lost == "second"]
    del tensors[gone]
    for content in (tensors, {name: tensors[name] for name in pair if name != gone}):
        save_file(content, tmp_path / "w.safetensors")
        message = refusal(tiny_sdxl, lora=option)
        assert "w.safetensors: " in message and f"lacks its other half, {gone}" in message


@pytest.mark.parametrize("end", ["lora_down.weight", "lora_up.weight"])
def test_half_an_adapter_in_kohyas_names(tiny_sdxl, tmp_path, end):
    module = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
    save_file({f"{module}.{end}": torch.ones(2, 2), f"{module}.alpha": torch.tensor(2)}, tmp_path / "w.safetensors")
    message = refusal(tiny_sdxl, lora={"source": str(tmp_path), "weight_name": "w.safetensors"})
    assert "lacks its other half" in message


def test_adapters_that_the_file_does_not_hold_must_change_nothing():
    zeros, ones = torch.zeros(2), torch.ones(2)
    whole = {"unet.a.lora_A.weight": ones, "unet.a.lora_B.weight": ones}
    assert _made_up(whole, {*whole}) is None
    assert _made_up(whole | {"unet.b.a.lora_A.weight": ones, "unet.b.a.lora_B.weight": zeros}, {*whole}) is None
    for other in (ones, zeros):
        assert _made_up(whole | {"unet.a.lora_B.bias": other}, {*whole}) == "unet.a.lora_B.bias"
    assert _made_up(whole | {"unet.b.lora_A.weight": ones, "unet.b.lora_B.weight": ones}, {*whole})


def test_a_layer_whose_name_ends_alike_gets_adapters_that_change_nothing(tiny_flux, tmp_path):
    """Those of the whole model's `proj_out` fit the ends of its blocks' names, too."""
    layer = load(tiny_flux, FluxPipeline).pipe.transformer.proj_out
    names = [f"transformer.proj_out.lora_{half}.weight" for half in "AB"]
    tensors = dict(zip(names, (torch.ones(2, layer.in_features), torch.ones(layer.out_features, 2)), strict=True))
    save_file(tensors, tmp_path / "w.safetensors")
    option = {"source": str(tmp_path), "weight_name": "w.safetensors"}
    before, after = (load(tiny_flux, FluxPipeline, lora=each).pipe.transformer.state_dict() for each in (None, option))
    assert [name for name in before if not torch.equal(before[name], after[name])] == ["proj_out.weight"]


def test_adapters_of_another_shape_cost_one_line_that_gives_the_reason(tiny_sdxl, lora, tmp_path, capfd):
    option = lora("unet")
    tensors = load_file(tmp_path / "w.safetensors")
    wide = {n: torch.ones(2, 99) if "_A." in n or "down." in n else tensor for n, tensor in tensors.items()}
    save_file(wide, tmp_path / "w.safetensors")
    logging.getLogger("diffusers").addHandler(handler := logging.StreamHandler())
    message = refusal(tiny_sdxl, lora=option)
    logging.getLogger("diffusers").removeHandler(handler)
    assert "does not fit the models" in message and "size mismatch" in message
    assert "unsuccessful" not in capfd.readouterr().err


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
    for parts in ({"unet": unet}, {"vae": {"source": str(folder / "vae")}}, {"lora": option}):
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


def test_adapters_of_a_transformer_are_merged(tiny_sd3, tmp_path):
    """diffusers gives these in another form than those of a U-Net."""
    layer = load(tiny_sd3, SD3Pipeline).pipe.transformer.transformer_blocks[0].attn.to_q
    names = [f"transformer.transformer_blocks.0.attn.to_q.lora_{half}.weight" for half in "AB"]
    tensors = dict(zip(names, (torch.ones(2, layer.in_features), torch.ones(layer.out_features, 2)), strict=True))
    save_file(tensors, tmp_path / "w.safetensors")
    option = {"source": str(tmp_path), "weight_name": "w.safetensors"}
    changed = load(tiny_sd3, SD3Pipeline, lora=option).pipe.transformer.transformer_blocks[0].attn.to_q
    torch.testing.assert_close(changed.weight, layer.weight + 2)


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


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"vae": {"sorce": "X"}}, "pipeline.model.vae.sorce: no such setting, its keys are source, revision"),
        ({"vae": {}}, "pipeline.model.vae lacks source"),
        ({"vae": "X"}, "pipeline.model.vae=X must be null or hold keys"),
        ({"vae": {"source": 5}}, "pipeline.model.vae.source=5 must be text"),
        ({"vae": {"source": "X", "revision": 5}}, "pipeline.model.vae.revision=5 must be text or null"),
        ({"unet": {"source": "X"}}, "pipeline.model.unet lacks weight_name"),
        ({"lora": {"source": None, "weight_name": "x"}}, "pipeline.model.lora.source=null must be text"),
        ({"scheduler": {"timestep_spacing": "leading"}}, "pipeline.model.scheduler lacks name"),
        ({"memory": {"ofload": "model"}}, "pipeline.model.memory.ofload: no such setting, its keys are offload"),
        ({"memory": {"vae_tiling": 1}}, "pipeline.model.memory.vae_tiling=1 must be true or false"),
    ],
)
def test_keys_of_parts_are_checked_before_anything_is_loaded(tmp_path, settings, words):
    assert words in refusal(tmp_path / "nothing", **settings)


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
