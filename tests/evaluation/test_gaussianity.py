"""The measures of a starting noise: right on standard noise, and each sees the defect it is for."""

import pytest
import torch

from golden_noise.evaluation.gaussianity import expected, noise_measures
from golden_noise.noise import draw_noise

NOISE = draw_noise(range(200), (4, 16, 16))


def means(noise, standard=NOISE):
    return {name: values.mean().item() for name, values in noise_measures(noise, standard).items()}


def test_standard_noise_measures_as_expected():
    found = noise_measures(NOISE, NOISE)
    assert len(found) == 6 + 2 * 4
    for name, values in found.items():
        assert (values.shape, values.dtype) == ((200,), torch.float64)
        tolerance = 4 * values.std().item() / 200**0.5 + 0.006  # four standard errors, and the small-sample bias
        assert values.mean().item() == pytest.approx(expected(name), abs=tolerance), name


def test_shrinking_shows_in_variance_and_norm_alone():
    found, before = means(0.8 * NOISE), means(NOISE)
    assert found["variance"] == pytest.approx(0.64 * before["variance"])
    assert found["norm"] == pytest.approx(0.8 * before["norm"])
    assert found["variance of channel 3"] == pytest.approx(0.64 * before["variance of channel 3"])
    for name in ("kurtosis", "autocorrelation"):
        assert found[name] == pytest.approx(before[name])
    assert found["move"] == pytest.approx(0.04 * before["norm"] ** 2, rel=0.01)


def test_a_shift_of_one_channel_shows_there():
    shifted = NOISE.clone()
    shifted[:, 1] += 0.5
    found, before = means(shifted), means(NOISE)
    assert found["mean of channel 2"] - before["mean of channel 2"] == pytest.approx(0.5, abs=1e-6)
    assert found["mean of channel 1"] == before["mean of channel 1"]
    assert found["mean"] - before["mean"] == pytest.approx(0.125, abs=1e-6)
    assert found["autocorrelation"] == pytest.approx(before["autocorrelation"], abs=1e-6)


def test_smooth_noise_is_autocorrelated():
    smooth = (NOISE + NOISE.roll(1, dims=-1)) / 2**0.5
    assert means(smooth)["autocorrelation"] == pytest.approx(0.25, abs=0.02)  # 1/2 over one axis of two


def test_heavy_tails_show_in_the_kurtosis():
    # A mixture of N(0, 1) and N(0, 4) in equal parts has kurtosis 3 (1 + 16) / 2 / 2.5^2.
    mixed = NOISE * torch.tensor([1.0, 2.0]).repeat(8)
    assert means(mixed)["kurtosis"] == pytest.approx(3 * 8.5 / 6.25 - 3, abs=0.1)


def test_constant_noise_gives_finite_measures():
    assert all(
        values.isfinite().all() for values in noise_measures(torch.zeros(1, 4, 8, 8), NOISE[:1, :, :8, :8]).values()
    )
