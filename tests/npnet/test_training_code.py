"""Files of the authors' training code, written and computed here from its formulas, in float64."""

import pytest
import timm
import torch
from diffusers.models.normalization import AdaGroupNorm
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from golden_noise.cli import convert
from golden_noise.errors import UserError
from golden_noise.npnet import NPNet, checkpoint

SIDE, TOKENS, WIDTH = 128, 77, 3
SWIN = "swin_tiny_patch4_window7_224"


class Convs(nn.Module):
    """Of `unet`, behind the denoiser's first convolution."""

    def __init__(self, width=6):
        super().__init__()
        self.conv_in = nn.Conv2d(4, width, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.conv1, self.conv2, self.conv3 = (nn.Conv2d(n, 4, 7, padding=3) for n in (width, 4, 4))
        self.train()(torch.randn(4, 4, 16, 16))  # the norm has seen something

    def forward(self, x):
        return self.conv3(self.conv2(self.bn(self.conv1(self.conv_in(x).relu()))).relu())


class Swin(nn.Module):
    """Of `vit`, `e_unet` and `svd_unet+unet`: the rows of its features are taken for channels."""

    def __init__(self):
        super().__init__()
        self.downconv, self.upconv, self.swin = nn.Conv2d(4, 3, 1), nn.Conv2d(7, 4, 1), timm.create_model(SWIN)

    def forward(self, x):
        features = self.swin.forward_features(self.downconv(F.interpolate(x, (224, 224))))
        return self.upconv(F.interpolate(features, (x.shape[2], x.shape[3])))


class SVD(nn.Module):
    """Of `svd_unet`, with attention, and of `svd_unet+unet`, which leaves it out but holds it, untrained."""

    def __init__(self, side=SIDE, attend=True):
        super().__init__()
        k = 2 * side
        self.attend = attend
        self.mlp1, self.mlp2, self.mlp4 = (
            nn.Sequential(nn.Linear(k, n), nn.ReLU(), nn.Linear(n, k)) for n in (64, 64, 1024)
        )
        self.mlp3 = nn.Sequential(nn.Linear(k, k))
        self.attention = nn.ModuleDict({"qkv": nn.Linear(k, 3 * k, bias=False), "proj": nn.Linear(k, k)})
        self.bn = nn.BatchNorm2d(k)

    def forward(self, x):
        matrix = torch.cat([torch.cat([x[:, 0], x[:, 1]], dim=2), torch.cat([x[:, 2], x[:, 3]], dim=2)], dim=1)
        u, s, vh = torch.linalg.svd(matrix)
        signs = (u * torch.linalg.svd(matrix.float()).U).sum(dim=1).sign()  # float32's, as published
        u, vh = u * signs[:, None], vh * signs[:, :, None]
        rows = self.mlp1(u.mT) + self.mlp2(vh) + self.mlp3(s)[:, None]
        if self.attend:
            q, k, v = self.attention["qkv"](rows).unflatten(-1, (3, 8, -1)).movedim(2, 0).transpose(2, 3)
            heads = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            change = self.mlp4(self.attention["proj"](heads).mean(dim=1))
        else:
            change = self.mlp4(rows).mean(dim=1)
        top, bottom = (u @ torch.diag_embed(s + change) @ vh).chunk(2, dim=1)
        return torch.stack([*top.chunk(2, dim=2), *bottom.chunk(2, dim=2)], dim=1)


def scaled(module):
    """Weights large enough for every part to act."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return module


@pytest.fixture(scope="module")
def parts():
    torch.manual_seed(0)
    made = {"conv": Convs(), "swin": Swin(), "svd": SVD(), "text": AdaGroupNorm(TOKENS * WIDTH, 4, 1, eps=1e-6)}
    return {name: scaled(part).eval() for name, part in made.items()} | {
        "alpha": torch.tensor([0.7], requires_grad=True),
        "beta": torch.tensor([-0.4], requires_grad=True),
    }


CONTENT = {
    "unet": {"unet": "conv"},
    "vit": {"unet": "swin"},
    "e_unet": {"unet": "swin"},
    "svd_unet": {"unet": "svd", "alpha": "alpha"},
    "svd_unet+unet": {"unet_svd": "svd", "unet_embedding": "swin", "alpha": "alpha", "beta": "beta"},
}
TOLD = {"vit": {"target": "absolute"}, "e_unet": {"target": "difference"}, "svd_unet+unet": {"attention": False}}


def content(variant, parts):
    """What is saved at the end of a training."""
    chosen = {name: parts[part] for name, part in (CONTENT[variant] | {"embeeding": "text"}).items()}
    return {name: part.state_dict() if isinstance(part, nn.Module) else part for name, part in chosen.items()}


def golden(variant, parts, noise, embeds):
    """What the variant is trained to predict; for `e_unet` the noise without the difference that it predicts."""
    double = {n: part.double() if isinstance(part, nn.Module) else part for n, part in parts.items()}
    x, t = noise.double(), double["text"](noise.double(), embeds.double().flatten(1))
    double["svd"].attend = variant == "svd_unet"
    gate = 2 * parts["alpha"].double().sigmoid() - 1
    result = {
        "unet": lambda: double["conv"](x + t),
        "vit": lambda: double["swin"](x + t),
        "e_unet": lambda: x - double["swin"](x + t),
        "svd_unet": lambda: double["svd"](x) + gate * t,
        "svd_unet+unet": lambda: double["svd"](x) + gate * t + parts["beta"].double() * double["swin"](x + t),
    }[variant]()
    for part in parts.values():
        part.float() if isinstance(part, nn.Module) else None
    return result


@pytest.fixture
def file(parts, tmp_path):
    def write(variant, name="trained.pth", change=lambda saved: saved):
        torch.save(change(content(variant, parts)), tmp_path / name)
        return str(tmp_path / name)

    return write


def inputs(batch=2):
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(batch, 4, SIDE, SIDE, generator=generator)
    return noise, torch.randn(batch, TOKENS, WIDTH, generator=generator)


@pytest.mark.parametrize("variant", CONTENT)
def test_every_variant_gives_what_it_was_trained_to(file, parts, variant):
    npnet = checkpoint.load(file(variant), **TOLD.get(variant, {}))
    assert (npnet.latent_shape, npnet.embeds_shape) == ((4, SIDE, SIDE), (TOKENS, WIDTH))
    assert not any(module.training for module in npnet.modules())
    noise, embeds = inputs()
    with torch.no_grad():
        expected = golden(variant, parts, noise, embeds)
        assert (expected - noise).std() > 0.1
        torch.testing.assert_close(npnet(noise, embeds).double(), expected, atol=1e-4, rtol=0)


def test_attention_that_was_not_trained_changes_the_golden_noise(file):
    noise, embeds = inputs(1)
    one, other = (checkpoint.load(file("svd_unet+unet"), attention=value) for value in (None, False))
    assert one.config["attention"] and not other.config["attention"]
    with torch.no_grad():
        assert (one(noise, embeds) - other(noise, embeds)).norm() / noise.norm() > 0.05


def test_a_file_without_attention_says_so_itself(file):
    def drop(saved):
        kept = {name: value for name, value in saved["unet_svd"].items() if not name.startswith("attention.")}
        return saved | {"unet_svd": kept}

    assert checkpoint.load(file("svd_unet+unet", change=drop)).config["attention"] is False


def test_a_size_that_no_shape_tells_can_be_given(file):
    npnet = NPNet.from_single_file(file("unet"), latent_shape=(4, 16, 24))
    assert npnet.latent_shape == (4, 16, 24)
    noise, embeds = torch.randn(1, 4, 16, 24), torch.randn(1, TOKENS, WIDTH)
    with torch.no_grad():
        assert npnet(noise, embeds).shape == noise.shape


def test_what_a_file_cannot_tell_is_asked_for(file):
    with pytest.raises(UserError, match=r"target=absolute .*'vit', target=difference .*'e_unet'"):
        checkpoint.load(file("vit"))
    with pytest.raises(UserError, match=r"attention=false: .*no SVD branch"):
        checkpoint.load(file("unet"), attention=False)
    with pytest.raises(UserError, match=r"target=absolute"):
        checkpoint.load(file("svd_unet"), target="absolute")
    with pytest.raises(UserError, match=r"attention=maybe must be true, false or null"):
        checkpoint.load(file("svd_unet"), attention="maybe")


@pytest.mark.parametrize("lost", ["unet bn.running_mean", "unet conv1.bias", "svd_unet mlp4.0.bias"])
def test_incomplete_files_are_refused(file, lost):
    variant, name = lost.split()

    def drop(saved):
        return saved | {"unet": {key: value for key, value in saved["unet"].items() if key != name}}

    with pytest.raises(UserError, match=r"not a published NPNet|is no NPNet, or an incomplete one"):
        checkpoint.load(file(variant, change=drop))


def test_converted_once_a_folder_tells_it_all(file, tmp_path, capsys):
    target = str(tmp_path / "npnet")
    convert.main([file("svd_unet+unet"), target, "--attention", "false"])
    noise, embeds = inputs(1)
    with torch.no_grad():
        expected = checkpoint.load(file("svd_unet+unet"), attention=False)(noise, embeds)
        assert torch.equal(checkpoint.load(target)(noise, embeds), expected)
    assert checkpoint.load(target, attention=False).config["attention"] is False
    with pytest.raises(UserError, match=r"attention=True: .*itself says attention=False"):
        checkpoint.load(target, attention=True)
    convert.main([file("e_unet"), target, "--target", "difference"])
    assert checkpoint.load(target).config["target"] == "difference"
    with pytest.raises(SystemExit):
        convert.main([file("vit"), target])
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_names_of_ddp_and_compile_are_the_same_weights(file, wrapper):
    def wrap(saved):
        return {
            name: {f"{wrapper}{key}": value for key, value in part.items()} if isinstance(part, dict) else part
            for name, part in saved.items()
        }

    plain, wrapped = checkpoint.load(file("unet")), checkpoint.load(file("unet", "wrapped.pth", wrap))
    assert all(torch.equal(value, wrapped.state_dict()[name]) for name, value in plain.state_dict().items())


def test_wrapped_names_of_the_flat_form(file, parts, tmp_path):
    saved = content("svd_unet+unet", parts)
    flat = {"module.alpha": saved.pop("alpha").detach(), "module.beta": saved.pop("beta").detach()}
    flat |= {f"module.{part}.{name}": value for part, values in saved.items() for name, value in values.items()}
    save_file(flat, tmp_path / "flat.safetensors")
    plain, wrapped = checkpoint.load(file("svd_unet+unet")), checkpoint.load(str(tmp_path / "flat.safetensors"))
    assert all(torch.equal(value, wrapped.state_dict()[name]) for name, value in plain.state_dict().items())
    save_file(flat | {"alpha": torch.zeros(1)}, tmp_path / "flat.safetensors")
    with pytest.raises(UserError, match="holds alpha twice"):
        checkpoint.load(str(tmp_path / "flat.safetensors"))
