"""Images between tensors, PIL and PNG files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
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


def read_image(path: Path) -> Image.Image:
    """An image file in RGB as a viewer shows it: turned upright as its EXIF data say, transparent parts on white.

    The published code of the metrics calls `convert("RGB")` alone. That is the same for the images of a diffusion
    pipeline, which have neither; but it would judge a photograph lying on its side, and colours that nobody sees.

    Raises:
        OSError, SyntaxError, ValueError: no image that Pillow can read.
    """
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
        if not image.has_transparency_data:
            return image.convert("RGB")
        visible = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", visible.size, "white"), visible).convert("RGB")


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
