"""Regularisers: what they measure and keep."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from golden_noise.errors import UserError
from golden_noise.noise import draw_noise
from golden_noise.search.regularisers import (
    BLOCK,
    GPER,
    MAGNITUDE,
    MPGR,
    Norm,
    compact_spectrum,
    from_compact_spectrum,
    nearest_magnitudes,
    regulariser,
)

NOISE = draw_noise(range(4), (4, 8, 8))
RAMP = torch.linspace(-3, 3, 256).reshape(1, 4, 8, 8)


def magnitudes(noise):
    return compact_spectrum(noise.flatten(1)).unflatten(1, (-1, BLOCK)).abs()


def is_white(noise, atol=1e-3):
    blocks = magnitudes(noise)
    torch.testing.assert_close(blocks.sum(-1), torch.full(blocks.shape[:-1], MAGNITUDE * BLOCK), atol=atol, rtol=0)
    torch.testing.assert_close(blocks.square().sum(-1), torch.full(blocks.shape[:-1], 1.0 * BLOCK), atol=atol, rtol=0)


@pytest.mark.parametrize("noise", [NOISE, 3 * NOISE, RAMP, NOISE + RAMP, torch.zeros(2, 4, 8, 8), 0.2 * NOISE])
def test_gper_keeps_its_constraints_and_projects_once(noise):
    once = GPER().project(noise)
    is_white(once)
    torch.testing.assert_close(once.flatten(1).norm(dim=1), torch.full((len(noise),), 16.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(GPER().project(once), once, atol=1e-4, rtol=0)


def test_gper_moves_white_noise_little_and_a_ramp_far():
    moves = [(GPER().project(x) - x).flatten(1).norm(dim=1) / 16 for x in (NOISE, RAMP)]
    assert moves[0].max() < 0.25 < moves[1].min()


@given(st.lists(st.floats(0, 10), min_size=BLOCK, max_size=BLOCK))
def test_nearest_magnitudes_keep_both_norms(values):
    found = nearest_magnitudes(torch.tensor([values]))
    assert (found >= 0).all()
    assert found.sum().item() == pytest.approx(MAGNITUDE * BLOCK, abs=1e-4)
    assert found.square().sum().item() == pytest.approx(BLOCK, abs=1e-4)


def test_nearest_magnitudes_are_nearer_than_others():
    start = draw_noise([0], (1000, BLOCK)).abs()[0] * torch.linspace(0.2, 3, BLOCK)
    found = nearest_magnitudes(start)
    others = nearest_magnitudes(found + 0.1 * draw_noise([1], (1000, BLOCK))[0])
    assert ((others - start).norm(dim=1) >= (found - start).norm(dim=1) - 1e-4).all()


def test_gper_keeps_the_gradients_length():
    kept = GPER().direction(0.01 * RAMP)
    torch.testing.assert_close(kept.norm(), (0.01 * RAMP).norm())
    assert torch.equal(GPER().direction(torch.zeros(1, 4, 8, 8)), torch.zeros(1, 4, 8, 8))


@pytest.mark.parametrize("size", [32, 256, 384])
def test_the_compact_spectrum_is_unitary_and_inverts(size):
    flat = draw_noise([0, 1], (size,))
    spectrum = compact_spectrum(flat)
    assert spectrum.shape == (2, size // 2)
    torch.testing.assert_close(2 * spectrum.abs().square().sum(1), flat.square().sum(1))
    torch.testing.assert_close(from_compact_spectrum(spectrum), flat, atol=1e-5, rtol=0)


def test_the_norms_penalty_by_hand_and_its_minimum():
    direction = NOISE[:1] / NOISE[:1].norm()
    best = math.sqrt(255)
    at, above, below = (Norm().penalty(r * direction, 0).item() for r in (best, best + 1, best - 1))
    assert at == pytest.approx(255 / 2 - 255 * math.log(best), rel=1e-5)
    assert at < min(above, below)


def test_penalties_are_float32_and_weighted():
    half = NOISE.half() * 100  # whose square overflows
    for name, weight in (("norm", 0.01), ("mpgr", 1.0)):
        loss = regulariser(name).loss(half, 0)
        assert loss.dtype == torch.float32 and loss.isfinite().all()
        torch.testing.assert_close(regulariser(name, 2.0).loss(half, 0), 2.0 / weight * loss)
    assert regulariser("none").loss(NOISE, 0).tolist() == [0.0] * 4


def test_mpgr_is_least_for_normal_noise_and_repeats():
    at = MPGR().penalty(NOISE, 0)
    for other in (0.5 * NOISE, 2 * NOISE, NOISE + 1, torch.ones_like(NOISE)):
        assert (MPGR().penalty(other, 0) > at).all()
    assert torch.equal(MPGR().penalty(NOISE, 0), at)
    assert not torch.equal(MPGR().penalty(NOISE, 1), at)
    torch.testing.assert_close(MPGR().penalty(NOISE[:1], 0), at[:1])


@pytest.mark.parametrize(("name", "size"), [("gper", 48), ("mpgr", 16)])
def test_noise_of_other_sizes_is_refused(name, size):
    with pytest.raises(UserError, match=f"search.regulariser={name}"):
        regulariser(name).check(size)
