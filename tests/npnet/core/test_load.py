"""Networks from one file or folder, and everything else that may lie there."""

import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from golden_noise.errors import UserError
from golden_noise.npnet import LowFrequencyNPNet, NPNet, checkpoint
from golden_noise.npnet.core.build import OlderTimm
from golden_noise.npnet.core.load import load

LATENT, EMBEDS = (4, 8, 8), (5, 12)


@pytest.fixture
def npnet():
    torch.manual_seed(0)
    npnet = NPNet(LATENT, EMBEDS, backbone="conv", backbone_args={"width": 6}).eval()
    with torch.no_grad():
        for parameter in npnet.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return npnet


@pytest.fixture
def file(npnet, tmp_path):
    checkpoint.save(npnet, str(tmp_path / "npnet.safetensors"))
    return tmp_path / "npnet.safetensors"


def inputs(size=LATENT[1:], tokens=EMBEDS[0]):
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(2, 4, *size, generator=generator)
    return noise, torch.randn(2, tokens, EMBEDS[1], generator=generator)


def metadata(file):
    with safe_open(file, "pt") as opened:
        return opened.metadata()


def rewrite(file, weights=None, **changes):
    """The file with other weights, or with a config in which some options differ."""
    text = metadata(file)["golden_noise"]
    config = json.dumps({**json.loads(text), **changes}) if changes else text
    save_file(weights or load_file(file), file, {"golden_noise": config})


def refusal(path, **options) -> str:
    with pytest.raises(UserError) as error:
        load(path, **options)
    assert "\n" not in str(error.value)
    assert Path(path).name in str(error.value)
    return str(error.value)


def test_a_file_says_itself_how_its_network_is_built(file, npnet):
    config = json.loads(metadata(file)["golden_noise"])
    options = {name: value for name, value in npnet.config.items() if not name.startswith("_")}
    assert config == json.loads(json.dumps({"_class_name": "NPNet", **options}))
    assert load_file(file).keys() == npnet.state_dict().keys()
    network = load(str(file))
    assert not isinstance(network, NPNet) and not network.training
    assert (network.latent_shape, network.embeds_shape, network.trained_for) == (LATENT, EMBEDS, {})
    assert torch.equal(network(*inputs()), npnet(*inputs()))


def test_half_the_file_is_still_a_network_of_float32(file, npnet):
    checkpoint.save(npnet.half(), str(file))
    assert load_file(file)["alpha"].dtype == torch.float16
    assert {parameter.dtype for parameter in load(file).parameters()} == {torch.float32}


@pytest.mark.parametrize("kind", [NPNet, LowFrequencyNPNet])
def test_its_use_can_be_chosen_anew(tmp_path, kind):
    """A network that takes any size has nothing to choose there."""
    checkpoint.save(kind(LATENT, EMBEDS, long_prompt="average"), str(tmp_path / "file.safetensors"))
    network = load(tmp_path / "file.safetensors", fit="tile")
    assert (getattr(network, "fit", None), network.long_prompt) == ("tile" if kind is NPNet else None, "average")
    assert network(*inputs((12, 9), 7)).shape == (2, 4, 12, 9)
    assert load(tmp_path / "file.safetensors", long_prompt="chain").long_prompt == "chain"
    assert "long_prompt: must be truncate" in refusal(tmp_path / "file.safetensors", long_prompt="drop")
    if kind is NPNet:
        assert "fit: must be exact" in refusal(tmp_path / "file.safetensors", fit="stretch")
        assert "signs=raw: " in refusal(tmp_path / "file.safetensors", signs="raw")


def replaced(weights, value):
    return {**weights, "alpha": value}


WEIGHTS = {
    "alpha has shape None and should have (1,)": lambda w: {n: v for n, v in w.items() if n != "alpha"},
    "zzz has shape (1,) and should have None": lambda w: w | {"zzz": torch.zeros(1)},
    "alpha has shape (2,) and should have (1,)": lambda w: replaced(w, torch.zeros(2)),
    "alpha has shape () and should have (1,)": lambda w: replaced(w, torch.tensor(1.0)),
    "alpha does not hold finite": lambda w: replaced(w, torch.tensor([float("nan")])),
    "running_var does not hold finite": lambda w: w | {"residual_branch.norm.running_var": torch.full((4,), torch.inf)},
    "alpha holds torch.int8": lambda w: replaced(w, torch.ones(1, dtype=torch.int8)),
    "alpha holds torch.float8_e4m3fn": lambda w: replaced(w, torch.ones(1).to(torch.float8_e4m3fn)),
    "num_batches_tracked holds torch.float32": lambda w: (
        w | {"residual_branch.norm.num_batches_tracked": torch.ones(())}
    ),
    "unet_svd.mlp4.2.weight": lambda w: w | {"unet_svd.mlp4.2.weight": torch.ones(16, 1024)},
    "or an incomplete one: beta": lambda w: {
        "unet_svd.mlp4.2.weight": torch.ones(16, 1024),
        "unet_svd.attention.qkv.weight": torch.tensor(1.0),
        "alpha": w["alpha"],
    },
}


@pytest.mark.parametrize("message", WEIGHTS)
def test_other_weights_are_refused(file, message):
    rewrite(file, WEIGHTS[message](load_file(file)))
    assert message in refusal(file)


CONFIGS = {
    "svd_branch.mlp2.0.weight has shape": {"latent_shape": [4, 8, 10]},
    "has shape (64, 16) and should have (64, 2000000)": {"latent_shape": [4, 10**6, 10**6]},  # not tried out in memory
    "the channels must be even": {"latent_shape": [3, 8, 8]},
    "holds no NPNet (": {"latent_shape": "abc"},
    "unexpected keyword argument 'new_option'": {"new_option": 1},
    "unexpected keyword argument 'pretrained'": {"pretrained": True},
    "target: must be golden": {"target": ["golden"]},
    "it holds a UNet2DConditionModel": {"_class_name": "UNet2DConditionModel"},
    "holds no LowFrequencyNPNet (": {"_class_name": "LowFrequencyNPNet"},
    "holds no adapters": {"_class_name": "DenoiserNPNet"},
    "no model 'hf-hub:someone/something'": {"backbone": "hf-hub:someone/something"},
    "backbone_args: checkpoint_path is not an argument": {
        "backbone": "vit_tiny_patch16_224",
        "backbone_args": {"checkpoint_path": "evil.pth"},
    },
}


@pytest.mark.parametrize("message", CONFIGS)
def test_other_configs_are_refused(file, message):
    rewrite(file, **CONFIGS[message])
    assert message in refusal(file)


@pytest.mark.parametrize("config", ["", "{", "[]", "1", "null", "[" * 10_000, "\ud83d"])
def test_what_is_no_config_is_refused(file, config):
    save_file(load_file(file), file, {"golden_noise": config.encode("utf-8", "replace").decode()})
    assert "is damaged: its config is" in refusal(file)


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


OTHERS = {
    "LoRA": {
        "lora_unet_down_blocks_0.lora_up.weight": torch.zeros(2, 2),
        "lora_unet_down_blocks_0.alpha": torch.ones(()),
    },
    "checkpoint": {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(2, 2)},
    "nothing": {},
}


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "pt", "bin"])
@pytest.mark.parametrize("other", OTHERS)
def test_files_of_something_else_are_refused(tmp_path, other, suffix):
    path = tmp_path / f"other.{suffix}"
    save_file(OTHERS[other], path) if suffix == "safetensors" else torch.save(OTHERS[other], path)
    assert "is not a published NPNet: it has no unet_embedding" in refusal(path)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "is a Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "is a web page"),
        (b"text", "more than tensors"),
        (pickle.dumps(Evil()), "more than tensors"),
    ],
)
def test_what_holds_no_tensors_is_refused(tmp_path, monkeypatch, suffix, content, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"file.{suffix}").write_bytes(content)
    assert words in refusal(tmp_path / f"file.{suffix}")
    assert not (tmp_path / "executed").exists()


def test_files_that_are_cut_off_or_swell_are_refused(file, tmp_path):
    whole = file.read_bytes()
    for part in (whole[:7], whole[:100], whole[: len(whole) // 2], whole[:-1]):
        file.write_bytes(part)
        assert "holds no tensors" in refusal(file)
    torch.save({"a": torch.zeros(10**6)}, tmp_path / "good.pth")
    with (
        zipfile.ZipFile(tmp_path / "good.pth") as good,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for record in good.infolist():
            bomb.writestr(record.filename, good.read(record))
    assert "its tensors are larger than the file" in refusal(tmp_path / "bomb.pth")
    torch.save({"a": torch.zeros(1).expand(10**9)}, tmp_path / "repeated.pth")
    assert "its tensors are larger than the file" in refusal(tmp_path / "repeated.pth")


def test_places_without_a_network_are_refused(file, npnet, tmp_path):
    assert "no file or folder" in refusal(tmp_path / "none.safetensors")
    assert "cannot be read" in refusal(tmp_path / ("x" * 500))
    (tmp_path / "folder").mkdir()
    assert "it has no config.json" in refusal(tmp_path / "folder")
    npnet.save_pretrained(tmp_path / "folder")
    assert torch.equal(load(tmp_path / "folder")(*inputs()), npnet(*inputs()))
    (tmp_path / "folder/config.json").write_text("[]")
    assert "config.json is damaged: it holds no JSON object" in refusal(tmp_path / "folder")
    (tmp_path / "folder/config.json").write_bytes(b"\xff\xfe{")
    assert "config.json is damaged" in refusal(tmp_path / "folder")
    npnet.save_config(tmp_path / "folder")
    (tmp_path / "folder/diffusion_pytorch_model.safetensors").write_bytes(file.read_bytes()[:-1])
    assert "diffusion_pytorch_model.safetensors is cut off" in refusal(tmp_path / "folder")
    (tmp_path / "folder/diffusion_pytorch_model.safetensors").unlink()
    assert "it has no diffusion_pytorch_model.safetensors" in refusal(tmp_path / "folder")


def test_models_of_older_timm_can_be_tried_without_memory():
    """They read how deep they are from a tensor."""
    with torch.device("meta"), OlderTimm():
        assert [x.item() for x in torch.linspace(0, 1, 3)] == [0, 0.5, 1]
        assert torch.nn.Linear(10**6, 10**6).weight.is_meta


def test_what_a_training_resumes_from_is_refused(tmp_path):
    torch.save({"pytorch-lightning_version": "2.6.0", "state_dict": {}}, tmp_path / "last.ckpt")
    assert "is what a training resumes from" in refusal(tmp_path / "last.ckpt")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"depth": 10**9}, "depth=1000000000 with"),
        ({"embeds_shape": [0, 12]}, "embeds_shape: must be an integer >= 1, got 0"),
        ({"embeds_shape": [5.0, 12]}, "embeds_shape: must be an integer >= 1, got 5.0"),
    ],
)
def test_sizes_that_no_network_has_are_refused_at_once(tmp_path, changes, words):
    checkpoint.save(LowFrequencyNPNet(LATENT, EMBEDS, width=8), str(tmp_path / "low.safetensors"))
    rewrite(tmp_path / "low.safetensors", **changes)
    assert words in refusal(tmp_path / "low.safetensors")


def test_more_layers_of_a_backbone_than_weights_are_refused_at_once(file):
    rewrite(file, backbone="vit_tiny_patch16_224", backbone_args={"depth": 10**9})
    assert "backbone_args: depth=1000000000 with" in refusal(file)


def test_weights_without_their_config_are_named(npnet, tmp_path):
    npnet.save_pretrained(tmp_path / "npnet")
    (tmp_path / "npnet/config.json").unlink()
    refused = refusal(tmp_path / "npnet/diffusion_pytorch_model.safetensors")
    assert "the folder of a network has a config.json beside it" in refused
