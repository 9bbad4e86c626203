# Vendored from golden_noise/npnet/core/sizes.py by python -m golden_noise.npnet.vendor; do not edit.
"""Weights made for one size of noise, used at another.

Shapes: B batch, C channels, H x W the noise at hand, h x w the size the network was trained on. Each way calls
`predict`, the network at its own size: (B, C, h, w) to golden noise of that shape. experiments/sizes measures them.
"""

import math
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

from .noise import draw_noise

Predict = Callable[[Tensor], Tensor]
Size = tuple[int, int]


def restore_std(golden_BCHW: Tensor, noise_BCHW: Tensor) -> Tensor:
    """Scales each golden noise to the standard deviation of its noise.

    A mean squared error shrinks what cannot be predicted, and shrunken noise changes images by itself.
    """
    have, want = (x.float().std(dim=(1, 2, 3), keepdim=True) for x in (golden_BCHW, noise_BCHW))
    return golden_BCHW * (want / have.clamp_min(torch.finfo(have.dtype).tiny)).to(golden_BCHW.dtype)


def tile(noise_BCHW: Tensor, size: Size, predict: Predict) -> Tensor:
    """Moves every tile of the trained size on its own; where tiles overlap, the mean of their moves counts.

    As few tiles as cover the noise, evenly spread. Noise that is smaller is surrounded as in `crop`.
    """
    canvas, window = _surround(noise_BCHW, size)
    move, count = torch.zeros_like(canvas), torch.zeros_like(canvas[:1, :1])
    starts = (_starts(have, want) for have, want in zip(canvas.shape[-2:], size, strict=True))
    for top, left in product(*starts):
        part = (..., slice(top, top + size[0]), slice(left, left + size[1]))
        move[part] += predict(canvas[part]) - canvas[part]
        count[part] += 1
    return noise_BCHW + (move / count)[window]


def crop(noise_BCHW: Tensor, size: Size, predict: Predict) -> Tensor:
    """Moves the centre, of the trained size, and leaves the rest.

    Noise that is smaller is put in the middle of a fixed noise, so that the network sees what it was trained on.
    """
    canvas, window = _surround(noise_BCHW, size)
    centre = _centre(canvas, size)
    golden = canvas.clone()
    golden[centre] = predict(canvas[centre])
    return golden[window]


def resize(noise_BCHW: Tensor, size: Size, predict: Predict) -> Tensor:
    """Resamples the noise to the trained size, and the network's move back.

    By the orthonormal cosine transform, cut or padded with zeros: white noise that is made smaller stays white,
    where interpolation would blur it. Of larger noise the move reaches the coarse structure alone.
    """
    rows_hH, columns_wW = (
        _resampling(have, want).to(noise_BCHW.device) for have, want in zip(noise_BCHW.shape[-2:], size, strict=True)
    )
    scale = math.prod(max(1.0, want / have) for have, want in zip(noise_BCHW.shape[-2:], size, strict=True)) ** 0.5
    small = (scale * rows_hH @ noise_BCHW.float() @ columns_wW.mT).to(noise_BCHW.dtype)
    move = (predict(small) - small).float()
    return noise_BCHW + (rows_hH.mT @ move @ columns_wW / scale).to(noise_BCHW.dtype)


FITS: dict[str, Callable[[Tensor, Size, Predict], Tensor]] = {"tile": tile, "crop": crop, "resize": resize}


def _starts(have: int, want: int) -> list[int]:
    """Where the tiles begin: from 0 to the last that still fits."""
    gaps = math.ceil(have / want) - 1
    return [round(i * (have - want) / gaps) for i in range(gaps + 1)] if gaps else [0]


def _centre(noise: Tensor, size: Size) -> tuple:
    starts = [(have - want) // 2 for have, want in zip(noise.shape[-2:], size, strict=True)]
    return ..., *(slice(start, start + want) for start, want in zip(starts, size, strict=True))


def _surround(noise_BCHW: Tensor, size: Size) -> tuple[Tensor, tuple]:
    """The noise in the middle of a fixed one of at least the trained size, and where it is there."""
    given = noise_BCHW.shape[-2:]
    height, width = (max(have, want) for have, want in zip(given, size, strict=True))
    canvas = draw_noise([0], (noise_BCHW.shape[1], height, width)).to(noise_BCHW)
    canvas = canvas.repeat(len(noise_BCHW), 1, 1, 1)
    window = _centre(canvas, (given[0], given[1]))
    canvas[window] = noise_BCHW
    return canvas, window


def _resampling(have: int, want: int) -> Tensor:
    """Matrix (want, have): cosine transform, cut or padded with zeros, transformed back."""
    k = min(have, want)
    return (cosines(want, k).mT @ cosines(have, k)).float()


def cosines(n: int, count: int) -> Tensor:
    """The lowest modes of the orthonormal DCT-II as a matrix (count, n) in float64."""
    i = torch.arange(n, dtype=torch.float64)
    matrix = (2 / n) ** 0.5 * torch.cos(math.pi * i[:count, None] * (i + 0.5) / n)
    matrix[0] /= 2**0.5
    return matrix
