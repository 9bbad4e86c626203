"""One file per network, which says itself how it is built: from the command to whatever takes an NPNet."""

import json
from itertools import pairwise

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from golden_noise.cli import convert
from golden_noise.errors import UserError
from golden_noise.hub import PACKAGE
from golden_noise.npnet import DenoiserNPNet, LowFrequencyNPNet, NPNet, checkpoint
from golden_noise.npnet.core.load import load
from golden_noise.pipelines.sdxl import SDXLPipeline
from golden_noise.pipelines.stable_diffusion import SDPipeline
from tests.npnet.test_variants import VARIANTS, inputs, trained

BUNDLED = PACKAGE / "shapes/weights/npnet"
LAYERS = ["to_q", "to_k", "to_out.0", "conv1"]
SMALL = {"device": "cpu", "height": 32, "width": 32, "steps": 2, "guidance": 3.0}


def metadata(file):
    with safe_open(file, "pt") as opened:
        return opened.metadata()


def refusal(call, *arguments, **options) -> str:
    with pytest.raises(UserError) as error:
        call(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_the_same_in_every_form(tmp_path, variant, monkeypatch):
    monkeypatch.chdir(tmp_path)
    npnet = trained(variant)
    npnet.save_pretrained("folder")
    chain = ["folder", "one.safetensors", "other", "two.safetensors", "three.safetensors"]
    for source, target in pairwise(chain):
        convert.main([source, target])
        again = checkpoint.load(target)
        assert type(again) is type(npnet) and not again.training
        kept, given = ({k: v for k, v in n.config.items() if not k.startswith("_")} for n in (again, npnet))
        assert kept == given
        assert torch.equal(again(*inputs(npnet)), npnet(*inputs(npnet)))
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "three.safetensors").read_bytes()


def test_the_published_architecture_keeps_the_communitys_names(tmp_path):
    """So that what reads these reads the file."""
    options = {"backbone_size": 224, "layout": "rows", "backbone_args": {}, "signs": "raw"}
    npnet = NPNet((4, 8, 8), (77, 2), backbone="swin_tiny_patch4_window7_224", fit="tile", **options).eval()
    torch.nn.init.normal_(npnet.svd_branch.mlp4[-1].weight, std=0.1)
    described, plain = tmp_path / "described.safetensors", tmp_path / "plain.safetensors"
    checkpoint.save(npnet, str(described))
    save_file(load_file(described), plain)
    expected = npnet(*inputs(npnet))
    for file, fit in ((described, "tile"), (plain, "exact")):
        again = checkpoint.load(str(file))
        assert (again.fit, again.config["signs"]) == (fit, "raw")
        assert torch.equal(again(*inputs(npnet)), expected)
    prefixes = {name.split(".")[0] for name in load_file(described)}
    assert prefixes == {"unet_embedding", "unet_svd", "text_embedding", "alpha", "beta"}


def test_one_file_is_read_by_from_single_file(tmp_path):
    checkpoint.save(trained("svd_unet"), str(tmp_path / "npnet.safetensors"))
    npnet = NPNet.from_single_file(str(tmp_path / "npnet.safetensors"), torch.bfloat16, unit_variance=True)
    assert npnet.dtype == torch.bfloat16 and npnet.unit_variance
    checkpoint.save(LowFrequencyNPNet((4, 8, 8), (5, 12)), str(tmp_path / "low.safetensors"))
    message = refusal(NPNet.from_single_file, str(tmp_path / "low.safetensors"))
    assert message.endswith("low.safetensors holds a LowFrequencyNPNet: golden_noise.load loads it")


def test_what_a_file_says_itself_cannot_be_told_otherwise(tmp_path):
    file = str(tmp_path / "npnet.safetensors")
    checkpoint.save(trained("svd_unet"), file)
    assert checkpoint.load(file, fit="tile", attention=True, target="golden").fit == "tile"
    assert "target=difference: " in refusal(checkpoint.load, file, target="difference")
    assert "itself says attention=True, leave attention out" in refusal(checkpoint.load, file, attention=False)
    checkpoint.save(LowFrequencyNPNet((4, 8, 8), (5, 12)), file)
    assert "takes any size: leave fit out" in refusal(checkpoint.load, file, fit="tile")
    assert "does not have this option" in refusal(checkpoint.load, file, attention=True)


@pytest.fixture(scope="module")
def pipeline(tiny_sdxl):
    return SDXLPipeline.load(str(tiny_sdxl), **SMALL)


@pytest.mark.parametrize("rank", [4, None])
def test_adapters_need_the_pipeline_only_to_be_used(pipeline, tiny_sd, tmp_path, capsys, rank):
    torch.manual_seed(0)
    npnet = DenoiserNPNet(pipeline, rank, LAYERS)
    with torch.no_grad():
        for parameter in npnet.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    npnet.save_pretrained(tmp_path / "folder")
    file = str(tmp_path / "one.safetensors")
    convert.main([str(tmp_path / "folder"), file])
    assert capsys.readouterr().out == f"{file}: adapters of rank {rank} for a denoiser\n"
    convert.main([file, str(tmp_path / "again")])
    noise, prompt = torch.randn(2, 4, 8, 8), pipeline.encode(["a red circle", "two crosses"])
    with torch.no_grad():
        expected = npnet.golden(noise, prompt)
        for source in (file, str(tmp_path / "again")):
            again = checkpoint.load(source, pipeline=pipeline)
            assert not again.training and torch.equal(again.golden(noise, prompt), expected)
    assert "which shares a pipeline's denoiser" in refusal(checkpoint.load, file)
    other = SDPipeline.load(str(tiny_sd), **SMALL)
    assert "belong to another denoiser" in refusal(checkpoint.load, file, pipeline=other)
    assert "has no published form" in refusal(checkpoint.save, npnet, str(tmp_path / "out.pth"))


@pytest.mark.parametrize("rank", [4, None])
def test_adapters_have_the_denoisers_names(pipeline, tmp_path, rank):
    npnet = DenoiserNPNet(pipeline, rank, LAYERS)
    checkpoint.save(npnet, str(tmp_path / "one.safetensors"))
    adapters = load(tmp_path / "one.safetensors", fit="tile", long_prompt="chain")
    assert (adapters.config, adapters.trained_for) == ({"rank": rank, "target_modules": LAYERS}, {})
    own = {name: value for name, value in npnet.denoiser.named_parameters() if value.requires_grad}
    assert {name: value.shape for name, value in adapters.weights.items()} == {
        name.replace(".npnet.", "."): value.shape for name, value in own.items()
    }
    if rank:  # the matrices of a layer, beside its weight
        layer, shape = "conv_out", pipeline.denoiser.conv_out.weight.shape
        a, b = (adapters.weights[f"{layer}.lora_{part}.weight"] for part in "AB")
        assert (b.flatten(1) @ a.flatten(1)).view(shape).shape == shape


ADAPTERS = {
    "lora_B.weight is missing": lambda w: {n: v for n, v in w.items() if n != "trained.conv_out/lora_B/npnet/weight"},
    "lora_A.weight is missing": lambda w: {n: v for n, v in w.items() if n != "trained.conv_out/lora_A/npnet/weight"},
    "of rank 16: conv_out.weight is odd": lambda w: w | {"trained.conv_out/weight": torch.zeros(4, 2)},
    "of rank 16: x.lora_A.npnet.weight is odd, of shape (8, 2)": lambda w: (
        w | {"trained.x/lora_A/npnet/weight": torch.zeros(8, 2)}
    ),
    "their names are others": lambda w: w | {"conv_out.weight": torch.zeros(4, 2)},
    "holds torch.int64 and should": lambda w: w | {"trained.x/lora_A/npnet/weight": torch.ones(16, 2).long()},
    "does not hold finite": lambda w: w | {"trained.x/lora_A/npnet/weight": torch.full((16, 2), torch.nan)},
}


@pytest.mark.parametrize("message", ADAPTERS)
def test_incomplete_and_damaged_adapters_are_refused(tmp_path, message):
    weights = load_file(BUNDLED / "diffusion_pytorch_model.safetensors")
    config = (BUNDLED / "config.json").read_text()
    save_file(ADAPTERS[message](weights), tmp_path / "one.safetensors", {"golden_noise": config})
    assert message in refusal(load, tmp_path / "one.safetensors")


@pytest.mark.parametrize(
    "changes", [{"rank": 0}, {"rank": True}, {"target_modules": "to_q"}, {"alpha": 1}, {"rank": "4"}]
)
def test_odd_configs_of_adapters_are_refused(tmp_path, changes):
    config = json.loads((BUNDLED / "config.json").read_text()) | changes
    weights = load_file(BUNDLED / "diffusion_pytorch_model.safetensors")
    save_file(weights, tmp_path / "one.safetensors", {"golden_noise": json.dumps(config)})
    assert "holds no adapters: its config" in refusal(load, tmp_path / "one.safetensors")


def test_a_file_says_what_its_network_was_trained_for(tmp_path):
    facts = {"pipeline": "shapes", "steps": 4, "guidance": 1.0}
    convert.main(["package:shapes/weights/npnet", str(tmp_path / "one.safetensors")])
    convert.main([str(tmp_path / "one.safetensors"), str(tmp_path / "two.safetensors")])
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    assert json.loads(metadata(tmp_path / "two.safetensors")["golden_noise"])["_trained_for"] == facts
    assert load(tmp_path / "two.safetensors").trained_for == facts
    npnet = trained("svd_unet")
    npnet.save_pretrained(tmp_path / "run/npnet/best")
    for text, known in {
        "pipeline: {name: sdxl, steps: 30, guidance: null}": {"pipeline": "sdxl", "steps": 30},
        "[": {},
    }.items():
        (tmp_path / "run/npnet/best/training.yaml").write_text(text)
        convert.main([str(tmp_path / "run"), str(tmp_path / "three.safetensors")])
        assert load(tmp_path / "three.safetensors").trained_for == known
        assert checkpoint.load(str(tmp_path / "three.safetensors")).trained_for == known


def test_what_could_not_be_loaded_again_is_not_converted(tmp_path, capsys):
    trained("svd_unet").save_pretrained(tmp_path / "folder")
    weights = tmp_path / "folder/diffusion_pytorch_model.safetensors"
    save_file({name: value for name, value in load_file(weights).items() if name != "alpha"}, weights)
    with pytest.raises(SystemExit) as exit:
        convert.main([str(tmp_path / "folder"), str(tmp_path / "one.safetensors")])
    assert exit.value.code == 2 and "alpha has shape None" in capsys.readouterr().err
    assert not (tmp_path / "one.safetensors").exists()
