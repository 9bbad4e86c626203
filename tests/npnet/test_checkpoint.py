"""Published weights: random ones in exactly the published format against the formulas in float64."""

import json
import pickle
import zipfile
from itertools import pairwise
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from golden_noise.cli import convert
from golden_noise.errors import UserError
from golden_noise.npnet import NPNet, checkpoint
from tests.forked import run_script

SWIN = "swin_tiny_patch4_window7_224"


@pytest.fixture(scope="session")
def swin():
    """The whole Swin-T, classifier included, in float64."""
    torch.manual_seed(0)
    return timm.create_model(SWIN).double().eval()


def linear(name, rows, columns, bias=True):
    weights = {f"{name}.weight": torch.randn(rows, columns) / columns**0.5}
    return weights | ({f"{name}.bias": 0.1 * torch.randn(rows)} if bias else {})


@pytest.fixture(scope="session")
def published(swin):
    """Makes a checkpoint as the authors publish it, for noise of 4 x side x side and prompts of 77 x width."""

    def make(side=16, width=8):
        torch.manual_seed(0)
        k = 2 * side
        residual = {
            "upconv.weight": torch.randn(4, 7, 1, 1),
            "upconv.bias": torch.randn(4),
            "downconv.weight": torch.randn(3, 4, 1, 1),
            "downconv.bias": torch.randn(3),
        } | {f"swin.{name}": value.float() for name, value in swin.state_dict().items()}
        svd = {}
        for mlp in ("mlp1", "mlp2"):
            svd |= linear(f"{mlp}.0", 64, k) | linear(f"{mlp}.2", k, 64)
        svd |= linear("mlp3.0", k, k)
        svd |= linear("attention.qkv", 3 * k, k, bias=False) | linear("attention.proj", k, k)
        svd |= {f"bn.{name}": value for name, value in torch.nn.BatchNorm2d(k).state_dict().items()}
        svd |= linear("mlp4.0", 1024, k) | linear("mlp4.2", k, 1024)
        return {
            "unet_embedding": residual,
            "unet_svd": svd,
            "embeeding": linear("linear", 8, 77 * width),
            "alpha": torch.tensor([0.7]),
            "beta": torch.tensor([-0.4]),
        }

    return make


def community(content):
    parts = {"unet_embedding": "unet_embedding", "unet_svd": "unet_svd", "text_embedding": "embeeding"}
    flat = {f"{ours}.{n}": value for ours, theirs in parts.items() for n, value in content[theirs].items()}
    return flat | {"alpha": content["alpha"], "beta": content["beta"]}


@pytest.fixture
def small(published, tmp_path):
    """A reduced checkpoint on disk in both forms, and its content."""
    content = published()
    torch.save(content, tmp_path / "small.pth")
    save_file(community(content), tmp_path / "small.safetensors")
    return tmp_path, content


def inputs(npnet, batch=2):
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(batch, *npnet.latent_shape, generator=generator)
    return noise, torch.randn(batch, *npnet.embeds_shape, generator=generator)


def expected_golden(content, swin, noise, embeds):
    """The published network in evaluation mode, from its formulas, in float64. The signs are torch's in float32."""
    w = {name: value.double() for name, value in community(content).items()}

    def layer(name, x):
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)

    def mlp(name, x):
        return layer(f"{name}.2", layer(f"{name}.0", x).relu())

    x, p = noise.double(), embeds.double().flatten(1)
    scale, shift = layer("text_embedding.linear", p)[..., None, None].chunk(2, dim=1)
    mean, variance = x.mean(dim=(1, 2, 3), keepdim=True), x.var(dim=(1, 2, 3), keepdim=True, correction=0)
    t = (x - mean) / (variance + 1e-6).sqrt() * (1 + scale) + shift

    matrix = torch.cat([torch.cat([x[:, 0], x[:, 1]], dim=2), torch.cat([x[:, 2], x[:, 3]], dim=2)], dim=1)
    u, s, vh = torch.linalg.svd(matrix)
    signs = (u * torch.linalg.svd(matrix.float()).U).sum(dim=1).sign()
    u, vh = u * signs[:, None], vh * signs[:, :, None]
    rows = mlp("unet_svd.mlp1", u.mT) + mlp("unet_svd.mlp2", vh) + layer("unet_svd.mlp3.0", s)[:, None]
    q, k, v = layer("unet_svd.attention.qkv", rows).unflatten(-1, (3, 8, -1)).movedim(2, 0).transpose(2, 3)
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)
    attended = layer("unet_svd.attention.proj", (weights @ v).transpose(1, 2).flatten(2))
    f = u @ torch.diag_embed(s + mlp("unet_svd.mlp4", attended.mean(dim=1))) @ vh
    top, bottom = f.chunk(2, dim=1)
    f = torch.stack([*top.chunk(2, dim=2), *bottom.chunk(2, dim=2)], dim=1)

    image = F.conv2d(F.interpolate(x + t, (224, 224)), *(w[f"unet_embedding.downconv.{n}"] for n in ("weight", "bias")))
    features = F.interpolate(swin.forward_features(image), noise.shape[-2:])  # (B, 7, 7, 768): rows for channels
    g = F.conv2d(features, *(w[f"unet_embedding.upconv.{n}"] for n in ("weight", "bias")))
    return f + (2 * torch.sigmoid(w["alpha"]) - 1) * t + w["beta"] * g


def check_output(npnet, content, swin):
    noise, embeds = inputs(npnet)
    with torch.no_grad():
        golden = npnet(noise, embeds)
        expected = expected_golden(content, swin, noise, embeds)
    assert (expected - noise).std() > 0.1
    torch.testing.assert_close(golden.double(), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_reduced_weights_give_the_published_output(small, swin, suffix):
    folder, content = small
    npnet = checkpoint.load(str(folder / f"small.{suffix}"))
    assert (npnet.latent_shape, npnet.embeds_shape) == ((4, 16, 16), (77, 8))
    assert not npnet.training
    check_output(npnet, content, swin)


@pytest.mark.parametrize("width", [2048, 1024])
def test_full_weights_give_the_published_output(published, swin, tmp_path, width):
    content = published(side=128, width=width)
    assert (len(content["unet_embedding"]), len(content["unet_svd"])) == (177, 22)
    assert sum(value.numel() for value in content["unet_embedding"].values()) == 28_288_401
    torch.save(content, tmp_path / "full.pth")
    npnet = checkpoint.load(str(tmp_path / "full.pth"))
    assert (npnet.latent_shape, npnet.embeds_shape) == ((4, 128, 128), (77, width))
    check_output(npnet, content, swin)


def test_both_forms_hold_the_same(small):
    one, other = (checkpoint.load(str(small[0] / name)) for name in ("small.pth", "small.safetensors"))
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_buffers_of_old_timm_are_tolerated(small):
    folder, content = small
    stages = {0: 2, 1: 2, 2: 6, 3: 2}
    blocks = [f"swin.layers.{stage}.blocks.{i}" for stage, count in stages.items() for i in range(count)]
    extra = {f"{block}.attn.relative_position_index": torch.zeros(49, 49, dtype=torch.int64) for block in blocks}
    extra |= {f"{block}.attn_mask": torch.zeros(4, 49, 49) for block in blocks[1:10:2]}
    assert len(extra) == 17
    content["unet_embedding"] |= extra
    torch.save(content, folder / "old.pth")
    new, old = (checkpoint.load(str(folder / name)) for name in ("small.pth", "old.pth"))
    assert torch.equal(new(*inputs(new)), old(*inputs(new)))


def test_conversions_lead_back(small, tmp_path):
    """Whatever the way, the used weights come back bit for bit, in files of the published keys and shapes."""
    folder, content = small
    chain = ["small.pth", "folder", "a.safetensors", "b.pth", "c.safetensors"]
    for source, target in pairwise(chain):
        checkpoint.save(checkpoint.load(str(folder / source)), str(folder / target))
    original, back = community(content), load_file(folder / "c.safetensors")
    assert {name: value.shape for name, value in back.items()} == {n: v.shape for n, v in original.items()}
    unused = ("unet_embedding.swin.head", "unet_svd.bn")
    for name, value in original.items():
        assert name.startswith(unused) or torch.equal(back[name], value), name
    nested = torch.load(folder / "b.pth", weights_only=True)
    assert set(nested) == set(content)
    for part in ("unet_embedding", "unet_svd", "embeeding"):
        assert set(nested[part]) == set(content[part])
    timm.create_model(SWIN).load_state_dict(
        {n.removeprefix("swin."): v for n, v in nested["unet_embedding"].items() if n.startswith("swin.")}
    )


def test_options_are_given_along(small):
    assert checkpoint.load(str(small[0] / "small.pth"), fit="tile").fit == "tile"
    assert NPNet.from_single_file(str(small[0] / "small.pth"), dtype=torch.bfloat16).dtype == torch.bfloat16
    npnet = NPNet.from_single_file(str(small[0] / "small.pth"), unit_variance=True)
    noise, embeds = inputs(npnet)
    torch.testing.assert_close(npnet(noise, embeds).std(dim=(1, 2, 3)), noise.std(dim=(1, 2, 3)))


@pytest.mark.long
def test_the_command_converts(small):
    folder, content = small
    done = run_script(folder, "-m", "golden_noise", "convert", str(folder / "small.pth"), str(folder / "npnet"))
    assert done.returncode == 0, done.stderr
    assert "(4, 16, 16)" in done.stdout
    npnet = NPNet.from_pretrained(folder / "npnet")
    assert npnet.config["signs"] == "raw"
    assert torch.equal(npnet.alpha, content["alpha"])


def test_a_mistake_in_the_command_costs_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        convert.main([str(tmp_path / "none.pth"), "out"])
    assert exit.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: no file")


def test_conversions_that_cannot_be_written_are_named(small, capsys):
    folder, _ = small
    (folder / "file").write_text("mine")
    for target, message in {"file": "is a file", "file/a.pth": "file"}.items():
        with pytest.raises(SystemExit) as exit:
            convert.main([str(folder / "small.pth"), str(folder / target)])
        assert exit.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and message in line
    assert (folder / "file").read_text() == "mine"


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


def without(content, part, name):
    return content | {part: {key: value for key, value in content[part].items() if key != name}}


def replaced(content, matrix):
    return content | {"unet_svd": content["unet_svd"] | {"mlp1.0.weight": matrix}}


def refusal(path) -> str:
    with pytest.raises(UserError) as error:
        checkpoint.load(str(path))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_other_files_are_refused(small, monkeypatch):
    folder, content = small
    monkeypatch.chdir(folder)
    wrong = {
        "no unet_svd.mlp1": without(content, "unet_svd", "mlp1.0.weight"),
        "svd_branch.mlp4.2.bias has shape None": without(content, "unet_svd", "mlp4.2.bias"),
        "more than tensors": content | {"alpha": 0.7},
        "no unet_embedding.upconv.weight": {"weight": torch.zeros(3)},
        "shapes fit no": content | {"embeeding": linear("linear", 8, 100)},
        "text_injection.linear.weight has shape": content | {"embeeding": linear("linear", 6, 77 * 8)},
        "surprise has shape": content | {"surprise": torch.zeros(1)},
        "no unet_embedding": [1, 2],
        "alpha does not hold finite": content | {"alpha": torch.tensor([float("nan")])},
        "mlp1.0.weight holds torch.int64 and should hold": replaced(content, torch.ones(64, 32, dtype=torch.int64)),
        "it holds more than tensors": replaced(content, torch.ones(64, 32).to_sparse()),
        "an odd one": replaced(content, torch.ones(64, 0)),
        "larger than the file": replaced(content, torch.ones(1).expand(64, 10**10)),
        "svd_branch.mlp1.2.weight has shape (32, 64) and should have (60000, 64)": {
            **content,
            "unet_svd": content["unet_svd"] | {f"mlp{i}.0.weight": torch.ones(64, 60_000) for i in (1, 2)},
        },
    }
    for message, other in wrong.items():
        torch.save(other, folder / "wrong.pth")
        assert message in refusal("wrong.pth"), message
    for content in (pickle.dumps(Evil()), b"", b"text"):
        for name in ("evil.pth", "evil.safetensors"):
            (folder / name).write_bytes(content)
            assert name in refusal(name)
    torch.save({"alpha": Evil()}, folder / "evil.pth")
    assert "more than tensors" in refusal("evil.pth")
    assert not (folder / "executed").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (POINTER, "is a Git LFS pointer and not the file itself: run `git lfs pull`"),
        ("\n<!DOCTYPE html><html></html>", "is a web page"),
        ("<html>", "is a web page"),
        ("", "is empty"),
    ],
)
def test_what_stands_in_for_a_file_is_named(tmp_path, content, words):
    for name in ("npnet.pth", "npnet.safetensors", "npnet.bin"):
        (tmp_path / name).write_text(content)
        assert f"{name} {words}" in refusal(tmp_path / name)


def test_files_that_are_cut_off_are_named(small):
    folder, _ = small
    for name, words in {"small.pth": "its end is missing", "small.safetensors": "or damaged: "}.items():
        whole = (folder / name).read_bytes()
        for part in (whole[: len(whole) // 2], whole[:-1], whole[:100]):
            (folder / f"cut{name}").write_bytes(part)
            message = refusal(folder / f"cut{name}")
            assert f"cut{name} is cut off" in message and words in message


def test_damaged_files_are_refused(small):
    folder, _ = small
    for name in ("small.pth", "small.safetensors"):
        whole = (folder / name).read_bytes()
        for part in (whole[:7], whole[: len(whole) // 2], whole[:-1], b"\xff" * 7 + b"\x00" + whole[8:]):
            (folder / f"cut{name}").write_bytes(part)
            assert "holds no tensors" in refusal(folder / f"cut{name}")
    with zipfile.ZipFile(folder / "junk.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"junk")
    assert "holds no tensors" in refusal(folder / "junk.pth")


def damage_weights(change):
    def damage(folder):
        file = folder / "diffusion_pytorch_model.safetensors"
        save_file(change({name: value.clone() for name, value in load_file(file).items()}), file)

    return damage


def change_config(**changes):
    def damage(folder):
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return damage


def only_pickled(folder):
    weights = folder / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), folder / "diffusion_pytorch_model.bin")
    weights.unlink()


DAMAGES = {
    "missing keys: alpha": damage_weights(lambda w: {name: value for name, value in w.items() if name != "alpha"}),
    "unexpected keys: zzz": damage_weights(lambda w: w | {"zzz": torch.zeros(1)}),
    "size mismatch for alpha": damage_weights(lambda w: w | {"alpha": torch.zeros(2)}),
    "alpha is not finite": damage_weights(lambda w: w | {"alpha": torch.full((1,), float("inf"))}),
    "size mismatch for svd_branch": change_config(latent_shape=[4, 8, 10]),
    "tuple of ints": change_config(latent_shape="abc"),
    "network of model=denoiser_lora, which shares a pipeline's denoiser": change_config(_class_name="DenoiserNPNet"),
    "no file named diffusion_pytorch_model.safetensors": only_pickled,
    "Unable to load weights": lambda folder: (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"junk"),
    "config.json is damaged: it is not JSON": lambda folder: (folder / "config.json").write_text("{"),
    "config.json is damaged: it holds no JSON object": lambda folder: (folder / "config.json").write_text("[]"),
    "config.json is empty": lambda folder: (folder / "config.json").write_text(""),
    "alpha holds torch.int8 and should hold torch.float32": damage_weights(
        lambda w: w | {"alpha": torch.ones(1, dtype=torch.int8)}
    ),
    "diffusion_pytorch_model.safetensors is a Git LFS pointer": lambda folder: (
        folder / "diffusion_pytorch_model.safetensors"
    ).write_text(POINTER),
    "it holds a UNet2DConditionModel": lambda folder: (folder / "config.json").write_text(
        '{"_class_name": "UNet2DConditionModel"}'
    ),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_damaged_folders_are_refused(tmp_path, message):
    """diffusers itself would fill missing weights with random numbers."""
    NPNet((4, 8, 8), (5, 12)).save_pretrained(tmp_path)
    DAMAGES[message](tmp_path)
    assert message in refusal(tmp_path)


def test_missing_sources_are_named(tmp_path):
    assert "ORG/NAME/FILE" in refusal(tmp_path / "none.safetensors")
    assert "nobody/no-such/model.pth" in refusal("nobody/no-such/model.pth")
    assert "nobody/no-such" in refusal("nobody/no-such")
    assert str(tmp_path) in refusal(tmp_path)


@pytest.mark.parametrize(
    ("options", "word"), [({}, "signs=raw"), ({"signs": "raw"}, "backbone=swin"), ({"svd": False}, "svd=True")]
)
def test_other_networks_have_no_published_form(tmp_path, options, word):
    small = {
        "backbone": "vit_tiny_patch16_224",
        "backbone_args": {"img_size": 8, "patch_size": 2, "embed_dim": 16, "depth": 1, "num_heads": 2},
    }
    npnet = NPNet((4, 8, 8), (77, 4), **small, **options)
    with pytest.raises(UserError, match=rf"needs {word}"):
        checkpoint.save(npnet, str(tmp_path / "out.pth"))
    assert not list(tmp_path.iterdir())
