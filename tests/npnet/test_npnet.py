"""NPNet as a whole, one suite over its variants."""

from inspect import signature

import pytest
import torch
from safetensors.torch import load_file, save_file

from golden_noise.errors import UserError
from golden_noise.npnet import NPNet, decompose
from golden_noise.npnet.core.network import Network
from golden_noise.npnet.core.svd import to_noise

LATENT, EMBEDS = (4, 8, 8), (5, 12)
VIT = {
    "backbone": "vit_tiny_patch16_224",
    "backbone_args": {
        "img_size": 8,
        "patch_size": 2,
        "in_chans": 4,
        "embed_dim": 16,
        "depth": 2,
        "num_heads": 2,
    },
}
SWIN = {
    "backbone": "swin_tiny_patch4_window7_224",
    "backbone_args": {
        "img_size": 32, "patch_size": 4, "window_size": 4,
        "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2),
    },
    "backbone_size": 32,
}  # fmt: skip
CONVNEXT = {
    "backbone": "convnext_atto",
    "backbone_args": {"depths": (1, 1, 1, 1), "dims": (4, 4, 8, 8)},
    "backbone_size": 32,
}
VARIANTS = {
    "svd_unet": {},
    "svd_unet+unet": VIT,
    "swin": SWIN,
    "convnext": CONVNEXT,
    "rows": {**SWIN, "layout": "rows", "signs": "raw"},
    "without attention": {"attention": False},
    "unit variance": {**VIT, "unit_variance": True},
    "unet": {"svd": False, "gates": False, "backbone": "conv", "backbone_args": {"width": 6}},
    "vit": {**VIT, "svd": False, "gates": False},
    "e_unet": {**VIT, "svd": False, "gates": False, "target": "difference"},
}


def make(name="svd_unet+unet", latent_shape=LATENT):
    torch.manual_seed(0)
    return NPNet(latent_shape, EMBEDS, **VARIANTS[name])


def trained(name="svd_unet+unet", latent_shape=LATENT):
    """A network whose parts all act."""
    npnet = make(name, latent_shape)
    with torch.no_grad():
        for parameter in npnet.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return npnet.eval()


def inputs(batch=3, latent_shape=LATENT):
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(batch, *latent_shape, generator=generator)
    return noise, torch.randn(batch, *EMBEDS, generator=generator)


@pytest.fixture(params=VARIANTS)
def variant(request):
    return request.param


def test_new_network_is_in_training_mode_throughout(variant):
    assert [name for name, module in make(variant).named_modules() if not module.training] == []


@pytest.mark.parametrize("chance", ["drop_path_rate", "proj_drop_rate"])
def test_backbone_is_random_in_training_alone(chance):
    arguments = {**VIT["backbone_args"], chance: 0.5}
    torch.manual_seed(0)
    npnet = NPNet(LATENT, EMBEDS, **{**VIT, "backbone_args": arguments})
    torch.nn.init.normal_(npnet.residual_branch.conv_out.weight)
    noise, embeds = inputs()
    assert not torch.equal(npnet(noise, embeds), npnet(noise, embeds))
    npnet.eval()
    assert torch.equal(npnet(noise, embeds), npnet(noise, embeds))


def test_new_network_is_exactly_the_identity(variant):
    noise, embeds = inputs()
    assert torch.equal(make(variant)(noise, embeds), noise)


def test_gradients_reach_every_parameter(variant):
    npnet = make(variant)
    optimizer = torch.optim.SGD(npnet.parameters(), lr=0.1)
    noise, embeds = inputs()
    target = torch.randn_like(noise)
    # At the first step the zero layers hide what is before them; they are no longer zero at the second.
    for _ in range(2):
        optimizer.zero_grad()
        (npnet(noise, embeds) - target).square().mean().backward()
        optimizer.step()
    unreached = [n for n, p in npnet.named_parameters() if p.grad is None or not p.grad.any()]
    assert not unreached


def test_saved_and_loaded_network_is_the_same(variant, tmp_path):
    npnet = trained(variant)
    npnet.save_pretrained(tmp_path)
    loaded = NPNet.from_pretrained(tmp_path)
    assert torch.equal(loaded(*inputs()), npnet(*inputs()))


def test_evaluation_is_deterministic_and_batches_do_not_mix(variant):
    npnet = trained(variant)
    noise, embeds = inputs()
    with torch.no_grad():
        golden = npnet(noise, embeds)
        assert torch.equal(npnet(noise, embeds), golden)
        singles = torch.cat([npnet(noise[i : i + 1], embeds[i : i + 1]) for i in range(len(noise))])
    torch.testing.assert_close(singles, golden, atol=1e-5, rtol=1e-5)


def test_prompt_and_noise_both_matter(variant):
    npnet = trained(variant)
    noise, embeds = inputs()
    golden = npnet(noise, embeds)
    assert (npnet(noise, embeds.flip(0)) - golden).abs().max() > 1e-3
    moved = npnet(noise.flip(0), embeds) - noise.flip(0)
    assert (moved - (golden - noise)).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(variant, dtype):
    npnet = trained(variant)
    noise, embeds = (tensor.to(dtype) for tensor in inputs())
    full = npnet(noise.float(), embeds.float())
    mixed = npnet(noise, embeds)
    assert mixed.dtype == dtype
    torch.testing.assert_close(mixed.float(), full, atol=0.05, rtol=0.05)
    half = npnet.to(dtype)(noise, embeds)
    assert half.dtype == dtype
    assert (half.float() - full).norm() / (full - noise.float()).norm() < 0.1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"unit_variance": True}, {"long_prompt": "chain"}])
def test_noise_of_half_precision_is_rounded_once(variant, dtype, options):
    npnet = trained(variant)
    for name, value in options.items():
        setattr(npnet, name, value)
    noise, embeds = inputs()
    noise, embeds = noise.to(dtype), embeds.repeat(1, 2, 1)
    with torch.no_grad():
        assert torch.equal(npnet(noise, embeds), npnet(noise.float(), embeds).to(dtype))


@pytest.mark.parametrize("fit", ["tile", "crop", "resize"])
def test_noise_of_half_precision_and_another_size_is_rounded_once(fit):
    npnet = trained("svd_unet")
    npnet.fit = fit
    noise, embeds = inputs(latent_shape=(4, 12, 6))
    with torch.no_grad():
        assert torch.equal(npnet(noise.half(), embeds), npnet(noise.half().float(), embeds).half())


def test_golden_noise_is_the_formula():
    npnet = trained()
    noise, embeds = inputs()
    t = npnet.text_injection(noise, embeds)
    expected = (
        noise
        + npnet.svd_branch(decompose(noise))
        + (2 * torch.sigmoid(npnet.alpha) - 1) * t
        + npnet.beta * npnet.residual_branch(noise + t)
    )
    torch.testing.assert_close(npnet(noise, embeds), expected)


def test_absolute_is_the_golden_noise_itself():
    vit, absolute = trained("vit"), trained("vit")
    absolute.target = "absolute"
    noise, embeds = inputs()
    torch.testing.assert_close(absolute(noise, embeds), vit(noise, embeds) - noise, atol=1e-5, rtol=0)


def test_difference_is_subtracted():
    """The reference adds it, which moves the noise the wrong way."""
    vit, e_unet = trained("vit"), trained("e_unet")
    noise, embeds = inputs()
    torch.testing.assert_close(e_unet(noise, embeds) - noise, noise - vit(noise, embeds), atol=1e-5, rtol=0)


def test_precomputed_decomposition_gives_the_same():
    noise, embeds = inputs()
    npnet = trained()
    assert torch.equal(npnet(noise, embeds, svd=decompose(noise)), npnet(noise, embeds))


def test_nothing_in_nothing_out():
    noise, embeds = inputs(batch=0)
    assert trained()(noise, embeds).shape == noise.shape


@pytest.mark.parametrize("options", [{}, {"signs": "raw"}, {"unit_variance": True}, {"fit": "tile"}])
def test_odd_noise(options):
    """Without noise, of equal values, of rank 1, with equal singular values: finite. Not a number: refused."""
    torch.manual_seed(0)
    npnet = NPNet(LATENT, EMBEDS, **options).eval()
    torch.nn.init.normal_(npnet.svd_branch.mlp4[-1].weight, std=0.1)
    size = (8, 12) if "fit" in options else (8, 8)
    rows, columns = 2 * size[0], 2 * size[1]
    orthogonal = torch.linalg.qr(torch.randn(columns, columns))[0][:rows]
    matrices = [
        torch.zeros(rows, columns),
        torch.ones(rows, columns),
        torch.randn(rows, 1) @ torch.randn(1, columns),
        orthogonal,
    ]
    for matrix in matrices:
        assert npnet(to_noise(matrix[None], 4), torch.randn(1, *EMBEDS)).isfinite().all()
    for value in (float("nan"), float("inf")):
        noise = torch.randn(2, 4, *size)
        noise[1, 0, 0, 0] = value
        with pytest.raises(UserError, match=r"noise: .*NaN or infinity"):
            npnet(noise, torch.randn(2, *EMBEDS))


def test_strides_do_not_matter(variant):
    npnet = trained(variant)
    noise, embeds = inputs()
    strided = noise.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2), embeds.mT.contiguous().mT
    torch.testing.assert_close(npnet(*strided), npnet(noise, embeds), atol=1e-5, rtol=1e-5)


def test_autocast_moves_nearly_as_much(variant):
    """Mixed precision: the decomposition stays exact."""
    npnet = trained(variant)
    noise, embeds = inputs()
    full = npnet(noise, embeds)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = npnet(noise, embeds)
    assert mixed.dtype == torch.float32
    assert (mixed - full).norm() / (full - noise).norm() < 0.05


@pytest.mark.parametrize("name", ["svd_unet+unet", "unet"])
def test_it_compiles_into_one_graph(name):
    npnet = trained(name)
    compiled = torch.compile(npnet, backend="eager", fullgraph=True)
    assert torch.equal(compiled(*inputs()), npnet(*inputs()))


def test_rectangular_noise():
    shape = (4, 6, 10)
    for name in ("svd_unet", "swin", "convnext", "rows", "without attention", "unet"):
        golden = trained(name, shape)(*inputs(latent_shape=shape))
        assert golden.shape == (3, *shape) and golden.isfinite().all()


def test_residual_branch_reads_tokens_as_a_map():
    branch = trained().residual_branch
    noise, _ = inputs()
    tokens = branch.backbone.forward_features(branch.conv_in(noise))
    assert tokens.shape == (3, 1 + 4 * 4, 16)
    features = tokens[:, 1:].mT.reshape(3, 16, 4, 4).repeat_interleave(2, -1).repeat_interleave(2, -2)
    torch.testing.assert_close(branch(noise), branch.conv_out(features), atol=1e-5, rtol=1e-5)


def test_residual_branch_reads_channels_last_as_a_map():
    branch = trained("swin").residual_branch
    noise, _ = inputs()
    image = noise.repeat_interleave(4, -1).repeat_interleave(4, -2)
    features = branch.backbone.forward_features(branch.conv_in(image)).permute(0, 3, 1, 2)
    assert features.shape == (3, 16, 4, 4)
    features = features.repeat_interleave(2, -1).repeat_interleave(2, -2)
    torch.testing.assert_close(branch(noise), branch.conv_out(features), atol=1e-5, rtol=1e-5)


def test_rows_layout_reads_channels_last_as_if_channels_came_first():
    branch = trained("rows").residual_branch
    noise, _ = inputs()
    image = noise.repeat_interleave(4, -1).repeat_interleave(4, -2)
    features = branch.backbone.forward_features(branch.conv_in(image))
    assert features.shape == (3, 4, 4, 16)  # rows, columns, features: taken for channels, height, width
    resized = features.repeat_interleave(2, -2)[..., ::2]
    torch.testing.assert_close(branch(noise), branch.conv_out(resized), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["swin", "rows"])
def test_residual_branch_resizes_few_channels(name):
    """The last conv reads the features as they are, which gives the same and costs less."""
    branch, seen = trained(name).residual_branch, []
    branch.conv_out.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[2:])))
    branch(inputs()[0])
    assert seen == [(4, 4) if name == "swin" else (4, 16)]


def test_conv_branch_is_the_formula():
    branch = trained("unet").residual_branch
    noise, _ = inputs()
    hidden = branch.norm(branch.conv1(torch.relu(branch.conv_in(noise))))
    torch.testing.assert_close(branch(noise), branch.conv3(torch.relu(branch.conv2(hidden))))


def test_unit_variance_restores_the_standard_deviation():
    """Here the move shrinks the noise, as regression does."""
    npnet = trained("unit variance")
    noise, embeds = inputs()
    plain = trained()(noise, embeds)
    golden = npnet(noise, embeds)
    assert (plain.std(dim=(1, 2, 3)) / noise.std(dim=(1, 2, 3)) - 1).abs().min() > 0.01
    torch.testing.assert_close(golden.std(dim=(1, 2, 3)), noise.std(dim=(1, 2, 3)))
    torch.testing.assert_close(golden / plain, (golden / plain)[:, :1, :1, :1].expand_as(plain), rtol=1e-4, atol=0)


def test_backbone_starts_from_a_file(tmp_path):
    import timm

    arguments = VARIANTS["swin"]["backbone_args"]
    torch.manual_seed(1)
    weights = timm.create_model("swin_tiny_patch4_window7_224", num_classes=3, **arguments).state_dict()
    torch.save(weights, tmp_path / "swin.pth")
    npnet = NPNet(LATENT, EMBEDS, **SWIN, pretrained=str(tmp_path / "swin.pth"))
    for name, value in npnet.residual_branch.backbone.state_dict().items():
        assert torch.equal(value, weights[name]), name
    with pytest.raises(UserError, match=r"pretrained: .*swin.pth.*convnext"):
        NPNet(LATENT, EMBEDS, **CONVNEXT, pretrained=str(tmp_path / "swin.pth"))


def test_conv_branch_copies_the_denoisers_first_convolution(tiny_sdxl):
    unet = load_file(tiny_sdxl / "unet/diffusion_pytorch_model.safetensors")
    options = {"svd": False, "gates": False, "backbone": "conv", "pretrained": str(tiny_sdxl)}
    branch = NPNet(LATENT, EMBEDS, backbone_args={"width": 16}, **options).residual_branch
    assert torch.equal(branch.conv_in.weight, unet["conv_in.weight"])
    assert torch.equal(branch.conv_in.bias, unet["conv_in.bias"])
    with pytest.raises(UserError, match=r"width: .*\(16, 4, 3, 3\).*\(32, 4, 3, 3\)"):
        NPNet(LATENT, EMBEDS, backbone_args={"width": 32}, **options)
    for source in (str(tiny_sdxl / "vae"), "nobody/no-such-model"):
        with pytest.raises(UserError, match=rf"pretrained: .*{source}"):
            NPNet(LATENT, EMBEDS, backbone_args={"width": 16}, **{**options, "pretrained": source})


def test_conv_branch_copies_a_distilled_denoiser(tiny_sdxl, tmp_path):
    weights = {"conv_in.weight": torch.randn(64, 4, 3, 3), "conv_in.bias": torch.randn(64)}
    save_file(weights, tmp_path / "unet.safetensors")
    place = {"source": str(tiny_sdxl), "unet": {"source": str(tmp_path), "weight_name": "unet.safetensors"}}
    options = {"svd": False, "gates": False, "backbone": "conv", "backbone_args": {"width": 64}}
    branch = NPNet(LATENT, EMBEDS, **options, pretrained=place).residual_branch
    assert torch.equal(branch.conv_in.weight, weights["conv_in.weight"])
    save_file({"other": torch.zeros(1)}, tmp_path / "unet.safetensors")
    for wrong, message in ((place, "unet.safetensors"), (True, "=true")):
        with pytest.raises(UserError, match=f"pretrained.*{message}"):
            NPNet(LATENT, EMBEDS, **options, pretrained=wrong)


@pytest.mark.parametrize(
    ("noise_shape", "embeds_shape", "message"),
    [
        ((3, 4, 8, 9), (3, *EMBEDS), r"noise: .*\(3, 4, 8, 8\).*\(3, 4, 8, 9\)"),
        ((4, 8, 8), (3, *EMBEDS), r"noise: .*\(4, 8, 8\)"),
        ((3, 6, 8, 8), (3, *EMBEDS), r"noise: .*\(3, 4, 8, 8\).*\(3, 6, 8, 8\)"),
        ((3, *LATENT), (3, 4, 12), r"prompt_embeds: .*\(3, 5, 12\).*\(3, 4, 12\)"),
        ((3, *LATENT), (3, 5, 13), r"prompt_embeds: .*\(3, 5, 12\).*\(3, 5, 13\)"),
        ((3, *LATENT), (3, 60), r"prompt_embeds: .*\(3, 5, 12\).*\(3, 60\)"),
        ((3, *LATENT), (2, *EMBEDS), r"prompt_embeds: .*\(3, 5, 12\).*\(2, 5, 12\)"),
    ],
)
def test_wrong_shapes_are_refused(noise_shape, embeds_shape, message):
    with pytest.raises(UserError, match=message):
        make("svd_unet")(torch.randn(noise_shape), torch.randn(embeds_shape))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "noise"}, "target: .*golden, difference or absolute.*noise"),
        ({"target": "absolute"}, "target=absolute: .*svd=false"),
        ({"gates": False}, "gates: .*backbone"),
        ({"signs": "any"}, "signs: .*fixed or raw.*any"),
        ({"fit": "stretch"}, "fit: .*exact, tile, crop or resize.*stretch"),
        ({"long_prompt": "drop"}, "long_prompt: .*truncate, average or chain.*drop"),
        ({**VIT, "layout": "columns"}, "layout: .*map or rows.*columns"),
        ({"backbone": "vit_none"}, "backbone: .*vit_none"),
        ({"backbone": "resnet10t", "pretrained": "/nowhere.pth"}, "pretrained: .*/nowhere.pth"),
        ({"backbone": "resnet10t", "backbone_args": {"colour": 1}}, "backbone_args=.*colour"),
        (
            {"backbone": "resnet10t", "backbone_args": {"checkpoint_path": "x.pth"}},
            "backbone_args: checkpoint_path is no",
        ),
        ({**VIT, "backbone_size": 16}, r"backbone: .*\(4, 8, 8\): Input height"),
        ({"backbone": "resnet10t", "backbone_size": 70, "layout": "rows"}, "backbone: .*layout"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        NPNet(LATENT, EMBEDS, **options)


def test_its_options_are_those_of_the_core():
    own, core = (dict(signature(kind.__init__).parameters) for kind in (NPNet, Network))
    assert own.pop("pretrained").default is False
    assert list(own.items()) == list(core.items())


def test_loading_never_asks_for_pretrained_weights(tmp_path):
    make().save_pretrained(tmp_path)
    assert "pretrained" not in NPNet.load_config(tmp_path)
