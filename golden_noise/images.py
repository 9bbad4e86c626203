"""Images between tensors, PIL and PNG files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor


def to_pil(images: Tensor) -> list[Image.Image]:
    """8-bit RGB images of a tensor (B, 3, H, W) in [0, 1]."""
    pixels = (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(image) for image in pixels]


def from_pil(images: Sequence[Image.Image]) -> Tensor:
    """(B, 3, H, W) float32 in [0, 1] of images of one size."""
    pixels = np.stack([np.asarray(image.convert("RGB")) for image in images])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def save_png(image: Image.Image, path: Path, text: dict[str, str] | None = None) -> None:
    """Save under a temporary name and rename, so that a file that exists is complete. `text` goes into its metadata."""
    info = PngInfo()
    for key, value in (text or {}).items():
        info.add_itxt(key, value)
    partial = path.with_name(f".{path.name}.tmp")
    image.save(partial, format="PNG", pnginfo=info)
    partial.replace(path)


def side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    """Images of one size in a row."""
    width, height = images[0].size
    sheet = Image.new("RGB", (width * len(images), height))
    for i, image in enumerate(images):
        sheet.paste(image, (i * width, 0))
    return sheet
