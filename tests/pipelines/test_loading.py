import shutil

import pytest
import torch
from diffusers import StableDiffusionPipeline

from golden_noise.errors import UserError
from golden_noise.pipelines.loading import pick_device
from golden_noise.pipelines.sdxl import SDXLPipeline


@pytest.fixture
def copy(tiny_sdxl, tmp_path):
    return shutil.copytree(tiny_sdxl, tmp_path / "copy")


def refusal(source, **options) -> str:
    with pytest.raises(UserError) as error:
        SDXLPipeline.load(str(source), device="cpu", height=32, width=32, steps=2, guidance=1.0, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_loaded_in_the_dtype_asked_for(tiny_sdxl):
    settings = {"height": 32, "width": 32, "steps": 2, "guidance": 1.0}
    assert SDXLPipeline.load(str(tiny_sdxl), device="cpu", **settings).dtype == torch.float32
    half = SDXLPipeline.load(str(tiny_sdxl), device="cpu", dtype="bfloat16", **settings)
    assert half.dtype == half.encode(["a circle"]).embeds.dtype == torch.bfloat16


def test_missing_folder(tmp_path):
    assert "pipeline.model.source" in refusal(tmp_path / "none")


def test_folder_that_is_no_pipeline(tmp_path):
    message = refusal(tmp_path)
    assert str(tmp_path) in message
    assert "model_index.json" in message


def test_pipeline_of_another_class(sdxl, tmp_path):
    parts = {name: sdxl.pipe.components[name] for name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")}
    StableDiffusionPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    ).save_pretrained(tmp_path)
    message = refusal(tmp_path)
    assert "holds a StableDiffusionPipeline" in message
    assert "StableDiffusionXLPipeline" in message


def test_broken_index(copy):
    (copy / "model_index.json").write_text("{")
    assert str(copy) in refusal(copy)


@pytest.mark.parametrize("part", ["unet", "vae/diffusion_pytorch_model.safetensors"])
def test_missing_part(copy, part):
    path = copy / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert part.split("/")[0] in refusal(copy)


def test_pickled_weights_are_not_read(copy):
    weights = copy / "unet/diffusion_pytorch_model.safetensors"
    torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()
    assert "safetensors" in refusal(copy)


def test_missing_variant(tiny_sdxl):
    assert "fp16" in refusal(tiny_sdxl, variant="fp16")


def test_hub_id_without_network():
    message = refusal("nobody/no-such-model")
    assert "nobody/no-such-model" in message
    assert "HF_HUB_OFFLINE" in message


def test_impossible_hub_id():
    assert "a/b c" in refusal("a/b c")


def test_unknown_dtype(tiny_sdxl):
    assert "pipeline.model.dtype=float13" in refusal(tiny_sdxl, dtype="float13")


def test_devices():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else pick_device("auto").type)
    for device in ("gpu0", "cuda:99"):
        with pytest.raises(UserError, match=f"device={device}"):
            pick_device(device)
