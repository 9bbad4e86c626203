"""Noise of another size, and prompts of another length, than the trained ones."""

import warnings
from itertools import product

import pytest
import torch

from golden_noise.errors import UserError
from golden_noise.npnet import NPNet
from golden_noise.npnet.core import text as npnet_text
from golden_noise.npnet.core.sizes import FITS

TRAINED, EMBEDS = (4, 8, 8), (5, 12)
SIZES = [(8, 16), (16, 16), (24, 8), (12, 20), (9, 8), (4, 4), (4, 20), (6, 8), (1, 17), (7, 3)]


def trained(**options):
    torch.manual_seed(0)
    npnet = NPNet(TRAINED, EMBEDS, backbone="conv", backbone_args={"width": 6}, **options)
    with torch.no_grad():
        for parameter in npnet.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return npnet.eval()


def inputs(size=TRAINED[1:], batch=3, tokens=5):
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(batch, 4, *size, generator=generator)
    return noise, torch.randn(batch, tokens, 12, generator=generator)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fit", FITS)
def test_any_size_keeps_its_variance_and_depends_on_the_prompt(fit, size):
    npnet = trained(fit=fit)
    noise, embeds = inputs(size)
    golden = npnet(noise, embeds)
    assert golden.shape == noise.shape
    ratio = golden.var(dim=(1, 2, 3)) / noise.var(dim=(1, 2, 3))
    assert (ratio - 1).abs().max() < 0.02
    assert (golden - noise).abs().max() > 0.01
    assert (npnet(noise, embeds.flip(0)) - golden).abs().max() > 1e-3
    single = npnet(noise[1:2], embeds[1:2])
    torch.testing.assert_close(single, golden[1:2], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("fit", FITS)
def test_a_new_network_is_the_identity_at_any_size(fit):
    npnet = NPNet(TRAINED, EMBEDS, fit=fit)
    for size in SIZES:
        noise, embeds = inputs(size)
        torch.testing.assert_close(npnet(noise, embeds), noise, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fit", FITS)
def test_the_trained_size_is_left_as_it_is(fit):
    noise, embeds = inputs()
    assert torch.equal(trained(fit=fit)(noise, embeds), trained()(noise, embeds))


def test_exact_names_the_other_ways():
    with pytest.raises(UserError, match=r"\(3, 4, 8, 8\).*\(3, 4, 8, 16\).*fit=tile.*fit=crop.*fit=resize"):
        trained()(*inputs((8, 16)))


@pytest.mark.parametrize("fit", FITS)
def test_other_channels_are_refused_in_every_case(fit):
    noise, embeds = inputs()
    with pytest.raises(UserError, match="noise"):
        trained(fit=fit)(noise[:, :2], embeds)


def double(noise):
    """A network of size 8 x 8 whose move is easy to follow."""
    assert noise.shape[-2:] == (8, 8)
    return 2 * noise


def test_tiles_are_moved_one_by_one():
    noise = torch.randn(2, 4, 16, 24)

    def predict(part):
        return part + part[..., :1, :1]

    golden = FITS["tile"](noise, (8, 8), predict)
    corners = noise[..., ::8, ::8].repeat_interleave(8, -1).repeat_interleave(8, -2)
    torch.testing.assert_close(golden, noise + corners)


def test_overlapping_tiles_cover_everything():
    for size in SIZES:
        noise = torch.randn(2, 4, *size)
        torch.testing.assert_close(FITS["tile"](noise, (8, 8), double), 2 * noise)


def test_crop_moves_the_centre_alone():
    noise = torch.randn(2, 4, 12, 10)
    golden = FITS["crop"](noise, (8, 8), double)
    centre = (..., slice(2, 10), slice(1, 9))
    torch.testing.assert_close(golden[centre], 2 * noise[centre])
    golden[centre] = noise[centre]
    assert torch.equal(golden, noise)


def test_small_noise_is_surrounded_by_noise():
    seen = []

    def predict(part):
        seen.append(part)
        return double(part)

    noise = torch.randn(64, 4, 4, 6)
    torch.testing.assert_close(FITS["crop"](noise, (8, 8), predict), 2 * noise)
    assert torch.equal(seen[0][..., 2:6, 1:7], noise)
    assert seen[0].std() == pytest.approx(1, abs=0.1)
    assert (seen[0][0] == seen[0][1]).sum() == 4 * (64 - 24)  # the same around each


@pytest.mark.parametrize("size", [(16, 16), (12, 40), (4, 4), (4, 16)])
def test_resized_noise_has_unit_variance(size):
    noise = torch.randn(256, 4, *size)
    seen = []

    def predict(part):
        seen.append(part)
        return part

    torch.testing.assert_close(FITS["resize"](noise, (8, 8), predict), noise)
    assert seen[0].var() == pytest.approx(1, abs=0.05)


def test_smaller_noise_stays_white():
    noise = torch.randn(4096, 1, 16, 16)
    seen = []
    FITS["resize"](noise, (8, 8), lambda part: seen.append(part) or part)
    covariance = torch.cov(seen[0].flatten(1).T)
    torch.testing.assert_close(covariance, torch.eye(64), atol=0.12, rtol=0)


def test_resize_gives_coarse_moves_back():
    """A constant move at the trained size is a constant move at the other, of the same energy."""
    noise = torch.randn(2, 4, 16, 32)
    golden = FITS["resize"](noise, (8, 8), lambda part: part + 1)
    torch.testing.assert_close(golden - noise, torch.full_like(noise, 8**-0.5), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_at_another_size(dtype):
    for fit, size in product(FITS, SIZES):
        noise, embeds = inputs(size)
        noise = noise.to(dtype)
        npnet = trained(fit=fit)
        full = npnet(noise.float(), embeds)
        half = npnet(noise, embeds.to(dtype))
        assert half.dtype == dtype
        assert (half.float() - full).norm() / (full - noise.float()).norm() < 0.05
        ratio = half.float().var(dim=(1, 2, 3)) / noise.float().var(dim=(1, 2, 3))
        assert (ratio - 1).abs().max() < 0.02


def test_truncation_keeps_the_first_tokens_and_warns_once():
    npnet_text._warn_truncated.cache_clear()
    noise, embeds = inputs(tokens=13)
    npnet = trained()
    with pytest.warns(UserWarning, match=r"13 tokens.* 5.*long_prompt"):
        golden = npnet(noise, embeds)
    assert torch.equal(golden, npnet(noise, embeds[:, :5]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        npnet(noise, embeds)


def test_average_reads_the_mean_of_the_chunks():
    noise, embeds = inputs(tokens=13)
    npnet = trained(long_prompt="average")
    mean = (embeds[:, :5] + embeds[:, 5:10] + embeds[:, 8:]) / 3
    torch.testing.assert_close(npnet(noise, embeds), npnet(noise, mean))


def test_chain_moves_the_noise_once_for_each_chunk():
    noise, embeds = inputs(tokens=10)
    npnet = trained(long_prompt="chain", fit="tile")
    assert torch.equal(npnet(noise, embeds), npnet(npnet(noise, embeds[:, :5]), embeds[:, 5:]))
    decomposed = npnet.svd_branch.decompose(noise)
    assert torch.equal(npnet(noise, embeds, svd=decomposed), npnet(noise, embeds))


@pytest.mark.parametrize("length", [76, 77, 78, 154, 155])
def test_chunks_of_long_prompts(length):
    """Whole chunks, the last one ending where the prompt ends; shorter prompts never get here."""
    embeds = torch.arange(length).view(1, -1, 1)
    chunks = [chunk.flatten().tolist() for chunk in npnet_text.shorten(embeds, 77, "chain")] if length > 76 else None
    expected = {77: [(0, 77)], 78: [(0, 77), (1, 78)], 154: [(0, 77), (77, 154)], 155: [(0, 77), (77, 154), (78, 155)]}
    if chunks is None:
        with pytest.raises(UserError, match="prompt_embeds"):
            NPNet(TRAINED, (77, 1))(torch.randn(1, *TRAINED), torch.randn(1, length, 1))
    else:
        assert chunks == [list(range(*span)) for span in expected[length]]


@pytest.mark.parametrize("how", ["truncate", "average", "chain"])
def test_prompts_of_the_trained_length_are_left_as_they_are(how):
    noise, embeds = inputs()
    assert torch.equal(trained(long_prompt=how)(noise, embeds), trained()(noise, embeds))


def test_options_are_saved_and_can_be_given_at_loading(tmp_path):
    trained(fit="crop", long_prompt="chain", unit_variance=True).save_pretrained(tmp_path)
    loaded = NPNet.from_pretrained(tmp_path)
    assert (loaded.fit, loaded.long_prompt, loaded.unit_variance) == ("crop", "chain", True)
    assert NPNet.from_pretrained(tmp_path, fit="tile").fit == "tile"
