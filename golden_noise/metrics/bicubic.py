"""Bicubic resizing with gradients."""

import torch
import torch.nn.functional as F
from torch import Tensor


def bicubic(images: Tensor, size: tuple[int, int], antialias: bool = True, clip: bool = False) -> Tensor:
    """Images (B, 3, *size) of images (B, 3, H, W), in their dtype and on their device, with gradients.

    The same as torch's `interpolate`, up to rounding. But each axis is multiplied by a matrix: the backward pass of
    `interpolate` adds up in random order on GPUs, so that `trainer.deterministic` would refuse it.

    Args:
        antialias: whether images are smoothed as they shrink, as PIL always does.
        clip: whether what overshoots [0, 1] is cut off after each axis, as PIL does since its images have 8 bits.
    """
    for axis, side in ((-1, size[1]), (-2, size[0])):  # in PIL's order
        if images.shape[axis] == side:
            continue
        weights = _weights(images, images.shape[axis], side, antialias)
        images = images @ weights.mT if axis == -1 else weights @ images
        images = images.clamp(0, 1) if clip else images
    return images


def _weights(like: Tensor, count: int, side: int, antialias: bool) -> Tensor:
    """Weights (side, count) of torch's filter: how it resizes images with a single bright pixel each.

    Made anew each time: kept from a call in inference mode, they could not enter a later graph.
    """
    pixels = torch.eye(count, dtype=like.dtype, device=like.device)
    return F.interpolate(pixels[None, None], (side, count), mode="bicubic", antialias=antialias)[0, 0]
