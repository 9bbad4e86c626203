"""How Gaussian a starting noise still is, as a sampler that expects standard normal noise would notice."""

import torch
from torch import Tensor

EXPECTED = {"mean": 0.0, "variance": 1.0, "norm": 1.0, "kurtosis": 0.0, "autocorrelation": 0.0, "move": 0.0}


def noise_measures(noise: Tensor, standard: Tensor) -> dict[str, Tensor]:
    """Measures (B,) float64 of each noise (B, C, H, W); EXPECTED holds what standard normal noise gives on average.

    - ``mean``, ``variance`` of all values, and of every channel, as ``mean of channel 1`` and so on;
    - ``norm``: length over the root of the dimension, where a standard normal vector lies close to 1;
    - ``kurtosis``: excess kurtosis, above 0 for heavy tails;
    - ``autocorrelation``: correlation of neighbours (right and below) within a channel, above 0 for smooth noise;
    - ``move``: mean squared distance to ``standard``, the noise it was made from.
    """
    x, start = noise.double(), standard.double()
    flat = x.flatten(1)
    centred = flat - flat.mean(1, keepdim=True)
    measures = {
        "mean": flat.mean(1),
        "variance": flat.var(dim=1),
        "norm": flat.norm(dim=1) / flat.shape[1] ** 0.5,
        "kurtosis": (centred**4).mean(1) / (centred**2).mean(1).clamp(min=1e-12) ** 2 - 3,
        "autocorrelation": _autocorrelation(x),
        "move": (x - start).flatten(1).pow(2).mean(1),
    }
    channels = x.flatten(2)
    for c in range(x.shape[1]):
        measures[f"mean of channel {c + 1}"] = channels[:, c].mean(1)
        measures[f"variance of channel {c + 1}"] = channels[:, c].var(dim=1)
    return measures


def expected(measure: str) -> float:
    """What standard normal noise gives on average (but for terms of the order of 1 / dimension)."""
    return EXPECTED[measure.split(" of ")[0]]


def _autocorrelation(x: Tensor) -> Tensor:
    """Lag-1 correlation (B,) over both axes, each channel around its own mean."""
    x = x - x.mean(dim=(2, 3), keepdim=True)
    variance = x.pow(2).mean(dim=(1, 2, 3)).clamp(min=1e-12)
    right = (x[..., 1:] * x[..., :-1]).flatten(1)
    below = (x[..., 1:, :] * x[..., :-1, :]).flatten(1)
    return torch.cat([right, below], dim=1).mean(1) / variance
