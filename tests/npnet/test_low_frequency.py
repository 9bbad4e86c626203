"""The network that moves only the lowest modes of the noise."""

import pytest
import torch
from safetensors.torch import load_file
from scipy.fft import dctn, idctn
from torch.nn import functional as F

from golden_noise.errors import UserError
from golden_noise.npnet import LowFrequencyNPNet, NPNet, checkpoint
from golden_noise.npnet.core.sizes import cosines
from golden_noise.pipelines.prompt_embedding import PromptEmbedding

LATENT, EMBEDS = (4, 8, 8), (5, 12)
SIZES = [(8, 8), (6, 10), (4, 4), (17, 5), (24, 32)]


def make(latent_shape=LATENT, modes=3, **options):
    torch.manual_seed(0)
    return LowFrequencyNPNet(latent_shape, EMBEDS, modes, **{"width": 16, **options})


def disturbed(*arguments, **options):
    """As after a training: all its parts act."""
    npnet = make(*arguments, **options)
    with torch.no_grad():
        for parameter in npnet.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return npnet.eval()


def inputs(size=LATENT[1:], batch=3, tokens=5):
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(batch, 4, *size, generator=generator)
    return noise, torch.randn(batch, tokens, 12, generator=generator)


def modes_of(noise):
    """The cosine transform of every channel, by SciPy."""
    return torch.from_numpy(dctn(noise.detach().double().numpy(), type=2, norm="ortho", axes=(2, 3)))


@pytest.mark.parametrize("options", [{}, {"norm_kept": True}, {"long_prompt": "chain"}])
@pytest.mark.parametrize("size", SIZES)
def test_a_new_network_is_the_identity(size, options):
    noise, embeds = inputs(size, tokens=10)
    assert torch.equal(make(**options)(noise, embeds[:, : 10 if options.get("long_prompt") else 5]), noise)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_cosines_are_the_orthonormal_transform(count):
    matrix = cosines(8, count)
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(count, dtype=torch.float64))
    torch.testing.assert_close(matrix[0], torch.full((8,), 8**-0.5, dtype=torch.float64))


@pytest.mark.parametrize("size", SIZES)
def test_only_the_lowest_modes_change(size):
    noise, embeds = inputs(size)
    move = modes_of(disturbed()(noise, embeds)) - modes_of(noise)
    assert (move[..., :3, :3].abs().amax(dim=(0, 1)) > 1e-3).all()
    move[..., :3, :3] = 0
    assert move.abs().max() < 1e-5


@pytest.mark.parametrize("size", SIZES)
def test_white_noise_has_independent_standard_normal_modes_at_every_size(size):
    """So that what a network sees does not depend on the size."""
    noise = torch.randn(8000, 1, *size, generator=torch.Generator().manual_seed(0))
    modes = modes_of(noise)[..., :3, :3].flatten(1)
    assert modes.mean(dim=0).abs().max() < 0.05
    torch.testing.assert_close(modes.T.cov(), torch.eye(9, dtype=torch.float64), atol=0.07, rtol=0)
    torch.testing.assert_close((modes**4).mean(dim=0), torch.full((9,), 3.0, dtype=torch.float64), atol=0.4, rtol=0)


def test_the_same_modes_move_alike_at_every_size():
    npnet = disturbed()
    noise, embeds = inputs()
    move = modes_of(npnet(noise, embeds)) - modes_of(noise)
    for height, width in SIZES:
        modes = torch.zeros(3, 4, height, width, dtype=torch.float64)
        modes[..., :3, :3] = modes_of(noise)[..., :3, :3]
        modes[..., 3:, :] = 5.0  # what the network does not see
        other = torch.from_numpy(idctn(modes.numpy(), type=2, norm="ortho", axes=(2, 3))).float()
        moved = modes_of(npnet(other, embeds)) - modes
        torch.testing.assert_close(moved[..., :3, :3], move[..., :3, :3], atol=1e-4, rtol=1e-4)


def test_golden_noise_is_the_formula():
    npnet = disturbed(modes=2, depth=1).double()
    noise, embeds = (tensor.double() for tensor in inputs())
    tokens = F.layer_norm(embeds, (12,))
    weights = (tokens @ npnet.prompt.score.weight.T).softmax(dim=1).repeat_interleave(2, dim=2)  # 8 heads, 16 features
    prompt = (weights * npnet.prompt.value(tokens)).sum(dim=1)
    (layer,) = npnet.layers
    scale, shift = layer.film(prompt).chunk(2, dim=1)
    modes = modes_of(noise)
    lowest = modes[..., :2, :2].flatten(1)
    hidden = F.silu((1 + scale) * layer.linear(lowest) + shift)
    modes[..., :2, :2] += (npnet.gain(prompt) * lowest + npnet.output(hidden)).view(3, 4, 2, 2).detach()
    expected = torch.from_numpy(idctn(modes.numpy(), type=2, norm="ortho", axes=(2, 3)))
    torch.testing.assert_close(npnet(noise, embeds), expected, atol=1e-9, rtol=0)


def test_gradients_reach_what_starts_at_zero_first_and_then_every_parameter():
    npnet = make()
    optimizer = torch.optim.SGD(npnet.parameters(), lr=0.1)
    noise, embeds = inputs()
    target = torch.randn_like(noise)
    names, reached = [name for name, _ in npnet.named_parameters()], []
    for _ in range(2):
        optimizer.zero_grad()
        (npnet(noise, embeds) - target).square().mean().backward()
        assert all(parameter.grad.isfinite().all() for parameter in npnet.parameters())
        reached.append({name for name, parameter in npnet.named_parameters() if parameter.grad.any()})
        optimizer.step()
    assert reached == [{name for name in names if name.startswith(("output", "gain"))}, {*names}]


@pytest.mark.parametrize("norm_kept", [False, True])
def test_it_learns_what_the_prompt_decides(norm_kept):
    """The golden noise is the noise, with an amount in the lowest mode that the prompt decides."""
    npnet = make(norm_kept=norm_kept)
    optimizer = torch.optim.Adam(npnet.parameters(), lr=0.01)
    prompts = torch.randn(3, *EMBEDS, generator=torch.Generator().manual_seed(2))
    amounts = torch.tensor([-2.0, 0.5, 3.0])
    generator = torch.Generator().manual_seed(3)

    def batch():
        which = torch.arange(24) % 3
        noise = torch.randn(24, *LATENT, generator=generator)
        golden = noise + amounts[which, None, None, None] / 8  # the mean of 8 x 8 numbers: mode (0, 0) is 8 times it
        if norm_kept:
            golden = F.normalize(golden.flatten(1)).view_as(golden) * noise.flatten(1).norm(dim=1)[:, None, None, None]
        return noise, prompts[which], golden

    for _ in range(600):
        noise, embeds, golden = batch()
        optimizer.zero_grad()
        (npnet(noise, embeds) - golden).square().mean().backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] *= 0.993
    noise, embeds, golden = batch()
    with torch.no_grad():
        error, plain = ((x - golden).square().mean() for x in (npnet(noise, embeds), noise))
        assert error < 0.003 * plain
        shuffled = (npnet(noise, embeds.roll(1, 0)) - golden).square().mean()
        assert shuffled > plain


def test_batches_do_not_mix_and_prompt_and_noise_both_matter():
    npnet = disturbed()
    noise, embeds = inputs()
    with torch.no_grad():
        golden = npnet(noise, embeds)
        assert torch.equal(npnet(noise, embeds), golden)
        singles = torch.cat([npnet(noise[i : i + 1], embeds[i : i + 1]) for i in range(3)])
        assert (npnet(noise, embeds.flip(0)) - golden).abs().max() > 1e-3
        moved = npnet(noise.flip(0), embeds) - noise.flip(0)
        assert (moved - (golden - noise)).abs().max() > 1e-3
    torch.testing.assert_close(singles, golden, atol=1e-5, rtol=1e-5)
    assert npnet(noise[:0], embeds[:0]).shape == (0, *LATENT)


@pytest.mark.parametrize("size", SIZES)
def test_the_norm_is_kept(size):
    noise, embeds = inputs(size)
    plain, kept = disturbed()(noise, embeds), disturbed(norm_kept=True)(noise, embeds)
    norms = kept.flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, noise.flatten(1).norm(dim=1))
    torch.testing.assert_close(kept, plain * (norms / plain.flatten(1).norm(dim=1))[:, None, None, None])
    assert disturbed(norm_kept=True)(torch.zeros_like(noise), embeds).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"norm_kept": True}, {"long_prompt": "chain"}])
def test_half_precision(dtype, options):
    npnet = disturbed(**options)
    noise, embeds = (tensor.to(dtype) for tensor in inputs(tokens=10 if "long_prompt" in options else 5))
    with torch.no_grad():
        full = npnet(noise.float(), embeds.float())
        assert torch.equal(npnet(noise, embeds), full.to(dtype))  # rounded once
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = npnet(noise.float(), embeds.float())
        half = npnet.to(dtype)(noise, embeds)
    assert mixed.dtype == torch.float32 and half.dtype == dtype
    for golden, allowed in ((mixed, 0.05), (half.float(), 0.1)):
        assert (golden - full).norm() / (full - noise.float()).norm() < allowed


def test_it_compiles_into_one_graph():
    npnet = disturbed()
    compiled = torch.compile(npnet, backend="eager", fullgraph=True)
    assert torch.equal(compiled(*inputs()), npnet(*inputs()))


@pytest.mark.filterwarnings("ignore:the prompt has")
def test_longer_prompts():
    noise, embeds = inputs(tokens=9)
    truncate, average, chain = (disturbed(long_prompt=how) for how in ("truncate", "average", "chain"))
    torch.testing.assert_close(truncate(noise, embeds), truncate(noise, embeds[:, :5]))
    mean = (embeds[:, :5] + embeds[:, 4:]) / 2
    torch.testing.assert_close(average(noise, embeds), average(noise, mean))
    torch.testing.assert_close(chain(noise, embeds), chain(chain(noise, embeds[:, :5]), embeds[:, 4:]))


@pytest.mark.parametrize(
    ("noise_shape", "embeds_shape", "message"),
    [
        ((3, 6, 8, 8), (3, *EMBEDS), r"noise: .*\(B, 4, H, W\).*at least 3.*\(3, 6, 8, 8\)"),
        ((3, 4, 8, 2), (3, *EMBEDS), r"noise: .*at least 3.*\(3, 4, 8, 2\)"),
        ((4, 8, 8), (3, *EMBEDS), r"noise: .*\(4, 8, 8\)"),
        ((3, *LATENT), (3, 4, 12), r"prompt_embeds: .*\(3, 5, 12\).*\(3, 4, 12\)"),
        ((3, *LATENT), (3, 5, 13), r"prompt_embeds: .*\(3, 5, 12\).*\(3, 5, 13\)"),
        ((3, *LATENT), (3, 60), r"prompt_embeds: .*\(3, 5, 12\).*\(3, 60\)"),
        ((3, *LATENT), (2, *EMBEDS), r"prompt_embeds: .*\(3, 5, 12\).*\(2, 5, 12\)"),
    ],
)
def test_wrong_shapes_are_refused(noise_shape, embeds_shape, message):
    with pytest.raises(UserError, match=message) as error:
        make()(torch.randn(noise_shape), torch.randn(embeds_shape))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modes": 9}, "modes: must be an integer from 1 to 8 .*, got 9$"),
        ({"modes": 5, "latent_shape": (4, 4, 16)}, "modes: must be an integer from 1 to 4 .*, got 5$"),
        ({"modes": 0}, "modes: .*got 0$"),
        ({"modes": 2.5}, "modes: .*got 2.5$"),
        ({"width": 0}, "width: must be an integer >= 1, got 0$"),
        ({"depth": 0}, "depth: must be an integer >= 1, got 0$"),
        ({"long_prompt": "drop"}, "long_prompt: .*truncate, average or chain.*drop"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(UserError, match=message) as error:
        make(**options)
    assert "\n" not in str(error.value)


def test_all_modes_are_the_most():
    noise, embeds = inputs()
    assert (modes_of(disturbed(modes=8)(noise, embeds)) - modes_of(noise)).abs().amin() > 0


def test_saved_and_loaded_it_is_the_same(tmp_path):
    npnet = disturbed(norm_kept=True)
    npnet.save_pretrained(tmp_path)
    noise, embeds = inputs()
    for again in (LowFrequencyNPNet.from_pretrained(tmp_path), checkpoint.load(str(tmp_path))):
        assert type(again) is LowFrequencyNPNet and not again.training
        assert torch.equal(again.golden(noise, PromptEmbedding(embeds)), npnet(noise, embeds))
    assert load_file(tmp_path / "diffusion_pytorch_model.safetensors").keys() == npnet.state_dict().keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fit": "tile"}, "fit=tile: .* takes any size: leave fit out"),
        ({"attention": False}, "attention=False: .* does not have this option"),
        ({"target": "difference"}, "target=difference: .* does not have this option"),
    ],
)
def test_options_of_other_networks_are_refused(tmp_path, options, message):
    make().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        checkpoint.load(str(tmp_path), **options)
    assert "\n" not in str(error.value)


def test_it_is_not_taken_for_another_class(tmp_path):
    make().save_pretrained(tmp_path / "low")
    NPNet(LATENT, EMBEDS).save_pretrained(tmp_path / "npnet")
    with pytest.raises(UserError, match="low holds no NPNet"):
        NPNet.from_pretrained(tmp_path / "low")
    with pytest.raises(UserError, match="npnet holds no LowFrequencyNPNet"):
        LowFrequencyNPNet.from_pretrained(tmp_path / "npnet")


def test_it_has_no_published_form(tmp_path):
    with pytest.raises(UserError, match=r"out.pth: a LowFrequencyNPNet has no published form; a folder, or a name"):
        checkpoint.save(make(), str(tmp_path / "out.pth"))
    assert not list(tmp_path.iterdir())
    checkpoint.save(make(), str(tmp_path / "folder"))
    assert checkpoint.load(str(tmp_path / "folder")).modes == 3


def test_it_learns_to_shrink_modes():
    """By a share that the prompt decides, and in fewer features than there are modes."""
    npnet = make(modes=8)
    optimizer = torch.optim.Adam(npnet.parameters(), lr=0.02)
    prompts, factors = torch.randn(2, *EMBEDS), torch.tensor([0.3, 0.9])[torch.arange(32) % 2, None, None, None]
    for _ in range(400):
        noise = torch.randn(32, *LATENT)
        error = (npnet(noise, prompts[torch.arange(32) % 2]) - factors * noise).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] *= 0.99
    assert error < 0.01 * ((1 - factors) * noise).square().mean()


def test_it_is_small_at_full_size():
    count = sum(parameter.numel() for parameter in LowFrequencyNPNet((4, 128, 128), (77, 2048)).parameters())
    assert count < 200_000  # of svd_unet+unet: 29.7 million
