"""Adapters that a config merges into a pipeline: all of a file, or none."""

import logging

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from golden_noise.npnet import DenoiserNPNet
from golden_noise.pipelines.flux import FluxPipeline
from golden_noise.pipelines.lora import _made_up
from golden_noise.pipelines.stable_diffusion_3 import SD3Pipeline

from .loaded import load, refusal, same


def test_a_unets_adapters_are_merged_without_a_word(tiny_sdxl, lora, caplog):
    with caplog.at_level(logging.WARNING):
        logging.getLogger("diffusers").propagate = True
        changed = load(tiny_sdxl, loras=lora("unet"))
    assert not [record.getMessage() for record in caplog.records if "LoRA" in record.getMessage()]
    assert not same(changed.pipe.unet.state_dict(), load(tiny_sdxl).pipe.unet.state_dict())


@pytest.mark.parametrize(
    "parts", [("unet", "text_encoder", "text_encoder_2"), ("text_encoder",), ("unet", "text_encoder_2")]
)
def test_adapters_change_the_models_that_they_are_for(tiny_sdxl, lora, parts):
    plain, changed = load(tiny_sdxl).pipe, load(tiny_sdxl, loras=lora(*parts)).pipe
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

    message = refusal(tiny_sdxl, loras=lora("unet", rename=rename))
    assert f"{stray} of {count} tensors fit nothing in this pipeline, such as unet." in message


def test_adapters_of_a_part_that_does_not_exist(tiny_sdxl, lora):
    def rename(_, name):
        return name.replace("text_encoder_2.", "text_encoder_3.")

    message = refusal(tiny_sdxl, loras=lora("unet", "text_encoder_2", rename=rename))
    assert "fit nothing in this pipeline, such as text_encoder_3." in message


@pytest.fixture
def two(layers, tmp_path):
    """The option `loras` of two files, of which the second names itself; one is in kohya's names."""
    torch.manual_seed(2)
    parts = {f"{part}.{name}": tensor for part in ("unet", "text_encoder") for name, tensor in layers[part].items()}
    save_file(parts, tmp_path / "w.safetensors")
    other = {name: 0.5 * torch.randn_like(tensor) for name, tensor in layers["unet"].items()}
    save_file(in_kohyas_names(other), tmp_path / "kohya é.safetensors")
    return {
        "style": {"source": str(tmp_path), "weight_name": "w.safetensors", "strength": 0.8},
        "a b": {"source": str(tmp_path / "kohya é.safetensors"), "strength": -0.3},
    }


def test_several_adapters_are_diffusers_own_of_these_strengths(tiny_sdxl, two, tmp_path):
    ours = load(tiny_sdxl, loras=two).pipe
    theirs = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)
    theirs.load_lora_weights(tmp_path, weight_name="kohya é.safetensors", adapter_name="kohya")
    theirs.load_lora_weights(tmp_path, weight_name="w.safetensors", adapter_name="w")
    theirs.set_adapters(["kohya", "w"], [-0.3, 0.8])
    theirs.fuse_lora(components=["unet", "text_encoder"], adapter_names=["kohya", "w"])
    theirs.unload_lora_weights()
    for part in ("unet", "text_encoder", "text_encoder_2"):
        found, expected = getattr(ours, part).state_dict(), getattr(theirs, part).state_dict()
        assert found.keys() == expected.keys()
        for name, tensor in found.items():
            torch.testing.assert_close(tensor, expected[name], atol=1e-6, rtol=1e-6)
    assert not same(ours.unet.state_dict(), load(tiny_sdxl, loras={"x": two["style"]}).pipe.unet.state_dict())


def test_the_order_of_the_settings_decides_nothing(tiny_sdxl, two):
    one, other = (load(tiny_sdxl, loras=dict(items)).pipe for items in (two.items(), reversed(two.items())))
    assert same(one.unet.state_dict(), other.unet.state_dict())


def test_adapters_of_no_strength_change_nothing(tiny_sdxl, lora):
    off = {"w": lora("unet", "text_encoder_2")["w"] | {"strength": 0}}
    plain, changed = load(tiny_sdxl).pipe, load(tiny_sdxl, loras=off).pipe
    for part in ("unet", "text_encoder_2"):
        assert same(getattr(plain, part).state_dict(), getattr(changed, part).state_dict())


def test_a_second_file_that_cannot_be_used_is_named(tiny_sdxl, two, tmp_path):
    missing = refusal(tiny_sdxl, loras=two | {"z": {"source": str(tmp_path / "no.safetensors")}})
    assert missing.startswith("no file ") and "pipeline.model.loras.z.source" in missing
    pickled = refusal(tiny_sdxl, loras=two | {"z": {"source": str(tmp_path / "old.ckpt")}})
    assert pickled.startswith("pipeline.model.loras.z.source=") and "must be a .safetensors file" in pickled
    assert "HF_HUB_OFFLINE" in refusal(tiny_sdxl, loras={"z": {"source": "nobody/none/file.safetensors"}})


def test_an_npnet_of_adapters_on_top_of_adapters(tiny_sdxl, two):
    pipeline = load(tiny_sdxl, loras=two)
    before = {name: tensor.clone() for name, tensor in pipeline.denoiser.state_dict().items()}
    npnet = DenoiserNPNet(pipeline, 2, ["to_q", "to_v"])
    prompt, noise = pipeline.encode(["a red circle"]), pipeline.draw_noise([0])
    with torch.no_grad():
        assert torch.equal(npnet.golden(noise, prompt), noise)
        for parameter in npnet.parameters():
            parameter += 0.1
        assert not torch.equal(npnet.golden(noise, prompt), noise)
    image = load(tiny_sdxl, loras=two).sample(prompt, noise)
    assert torch.equal(pipeline.sample(prompt, noise), image)
    assert same(before, load(tiny_sdxl, loras=two).denoiser.state_dict())


def in_kohyas_names(tensors):
    renamed = {}
    for name, tensor in tensors.items():
        module, _, end = name.partition(".lora")
        end = {"_A.weight": "lora_down.weight", "_B.weight": "lora_up.weight"}.get(end, end.lstrip("."))
        end = end.replace("down.weight", "lora_down.weight") if end == "down.weight" else end
        end = end.replace("up.weight", "lora_up.weight") if end == "up.weight" else end
        renamed[f"lora_unet_{module.replace('.', '_')}.{end}"] = tensor
    return renamed


def test_adapters_in_kohyas_names(tiny_sdxl, lora, layers, tmp_path):
    save_file(in_kohyas_names(layers["unet"]), tmp_path / "kohya.safetensors")
    kohya = load(tiny_sdxl, loras={"w": {"source": str(tmp_path / "kohya.safetensors")}})
    assert same(kohya.pipe.unet.state_dict(), load(tiny_sdxl, loras=lora("unet")).pipe.unet.state_dict())


def test_adapters_with_scales_that_would_be_dropped(tiny_sdxl, lora, tmp_path):
    option = lora("unet")
    tensors = load_file(tmp_path / "w.safetensors")
    save_file(tensors | {"unet.down_blocks.1.dora_scale": torch.ones(3)}, tmp_path / "w.safetensors")
    assert "w.safetensors holds DoRA adapters" in refusal(tiny_sdxl, loras=option)


def test_adapters_that_are_no_numbers(tiny_sdxl, lora, layers, tmp_path):
    option = lora("unet")
    tensors = load_file(tmp_path / "w.safetensors")
    next(iter(tensors.values()))[0, 0] = torch.nan
    save_file(tensors, tmp_path / "w.safetensors")
    assert "w.safetensors makes weights that are not finite" in refusal(tiny_sdxl, loras=option)


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
        message = refusal(tiny_sdxl, loras=option)
        assert "w.safetensors: " in message and f"lacks its other half, {gone}" in message


@pytest.mark.parametrize("end", ["lora_down.weight", "lora_up.weight"])
def test_half_an_adapter_in_kohyas_names(tiny_sdxl, tmp_path, end):
    module = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
    save_file({f"{module}.{end}": torch.ones(2, 2), f"{module}.alpha": torch.tensor(2)}, tmp_path / "w.safetensors")
    message = refusal(tiny_sdxl, loras={"w": {"source": str(tmp_path), "weight_name": "w.safetensors"}})
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
    option = {"w": {"source": str(tmp_path), "weight_name": "w.safetensors"}}
    before, after = (load(tiny_flux, FluxPipeline, loras=each).pipe.transformer.state_dict() for each in (None, option))
    assert [name for name in before if not torch.equal(before[name], after[name])] == ["proj_out.weight"]


def test_adapters_of_another_shape_cost_one_line_that_gives_the_reason(tiny_sdxl, lora, tmp_path, capfd):
    option = lora("unet")
    tensors = load_file(tmp_path / "w.safetensors")
    wide = {n: torch.ones(2, 99) if "_A." in n or "down." in n else tensor for n, tensor in tensors.items()}
    save_file(wide, tmp_path / "w.safetensors")
    logging.getLogger("diffusers").addHandler(handler := logging.StreamHandler())
    message = refusal(tiny_sdxl, loras=option)
    logging.getLogger("diffusers").removeHandler(handler)
    assert "does not fit the models" in message and "size mismatch" in message
    assert "unsuccessful" not in capfd.readouterr().err


def test_adapters_of_a_transformer_are_merged(tiny_sd3, tmp_path):
    """diffusers gives these in another form than those of a U-Net."""
    layer = load(tiny_sd3, SD3Pipeline).pipe.transformer.transformer_blocks[0].attn.to_q
    names = [f"transformer.transformer_blocks.0.attn.to_q.lora_{half}.weight" for half in "AB"]
    tensors = dict(zip(names, (torch.ones(2, layer.in_features), torch.ones(layer.out_features, 2)), strict=True))
    save_file(tensors, tmp_path / "w.safetensors")
    option = {"w": {"source": str(tmp_path), "weight_name": "w.safetensors"}}
    changed = load(tiny_sd3, SD3Pipeline, loras=option).pipe.transformer.transformer_blocks[0].attn.to_q
    torch.testing.assert_close(changed.weight, layer.weight + 2)
