"""Images between tensors, PIL and PNG files, and sheets of them."""

import json
import math
import struct
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, ImageDraw, ImageOps
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from golden_noise.errors import UserError
from golden_noise.files import atomic_file, is_machines, naming

TEXT = "golden-noise"  # key of a PNG's own text
PARAMETERS, SOFTWARE = "parameters", "Software"  # keys of texts that other programs read
EXIF = {".jpg": "JPEG", ".webp": "WEBP"}  # formats whose texts are EXIF data
ENDINGS = (".png", *EXIF)
QUALITY = 95
UTF_16 = b"UNICODE\0"  # EXIF's name of the encoding of a comment
MOST_EXIF = 65_527  # bytes in a JPEG file, whose segments hold 65,533 with the name of the data
LEAST, THUMBNAIL = 256, 288  # pixels: sheets enlarge smaller images, and a contact sheet shrinks higher ones
MARGIN = 12


def to_pil(images: Tensor) -> list[Image.Image]:
    """8-bit RGB images of a tensor (B, 3, H, W) in [0, 1].

    Raises:
        UserError: a pixel is not finite; it would become black.
    """
    if not images.isfinite().all():
        raise UserError("an image has pixels that are not finite")
    pixels = (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(image) for image in pixels]


def from_pil(images: Sequence[Image.Image]) -> Tensor:
    """(B, 3, H, W) float32 in [0, 1] of images of one size."""
    pixels = np.stack([np.asarray(image.convert("RGB")) for image in images])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def read_image(path: Path) -> Image.Image:
    """An image file in RGB as a viewer shows it: turned upright as its EXIF data say, transparent parts on white.

    The published code of the metrics calls `convert("RGB")` alone. That is the same for the images of a diffusion
    pipeline, which have neither; but it would judge photographs on their side, and invisible colours.

    Raises:
        OSError, SyntaxError, ValueError: Pillow cannot read the image.
    """
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
        if not image.has_transparency_data:
            return image.convert("RGB")
        visible = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", visible.size, "white"), visible).convert("RGB")


def save_png(image: Image.Image, path: Path, text: dict[str, str] | None = None) -> None:
    """Save as an `atomic_file`, with `text` in its metadata."""
    info = PngInfo()
    for key, value in (text or {}).items():
        if key == PARAMETERS:
            info.add_text(key, value)  # as A1111 does: plain where Latin-1 has all letters
        else:
            info.add_itxt(key, value)
    with atomic_file(path, durable=False) as file:  # an image that a power cut destroys is drawn again
        image.save(file, format="PNG", pnginfo=info)


def save_image(image: Image.Image, path: Path, text: dict[str, str], quality: int | None = None) -> None:
    """Save in the format of the name's ending: .png, .jpg or .webp.

    The texts of a PNG are in its metadata. In other formats `PARAMETERS` is the EXIF comment, where A1111's web UI puts
    it, `SOFTWARE` the tag of that name, and `TEXT` the history; the others are left out.

    Args:
        quality: of .jpg and .webp, from 1 to 100.
    """
    if path.suffix == ".png":
        save_png(image, path, text)
        return
    options = {"subsampling": 0} if path.suffix == ".jpg" else {}  # each pixel keeps its own color
    with atomic_file(path, durable=False) as file:
        chosen = QUALITY if quality is None else quality
        image.save(file, format=EXIF[path.suffix], quality=chosen, exif=exif_of(text), **options)


def exif_of(text: Mapping[str, str]) -> bytes:
    """EXIF data with the texts that `save_image` keeps."""
    exif = Image.Exif()
    if TEXT in text:
        exif[ExifTags.Base.ImageHistory] = f"{TEXT}: {text[TEXT]}"
    if SOFTWARE in text:
        exif[ExifTags.Base.Software] = text[SOFTWARE]
    if PARAMETERS in text:
        comment = UTF_16 + text[PARAMETERS].encode("utf-16-be")
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    return exif.tobytes()


def about(path: Path) -> dict[str, Any]:
    """The metadata of an image of this project; empty for any other file, or none."""
    try:
        with naming(path), Image.open(path) as image:
            text = image.info.get(TEXT, "{}") if image.format == "PNG" else _history(image)
        metadata = json.loads(text)
    except (OSError, ValueError, SyntaxError, struct.error) as error:  # the last two of damaged EXIF data
        if is_machines(error):
            raise
        return {}
    return metadata if isinstance(metadata, dict) else {}


def _history(image: Image.Image) -> str:
    name, _, text = str(image.getexif().get(ExifTags.Base.ImageHistory, "")).partition(": ")
    return text if name == TEXT else "{}"


def side_by_side(images: Mapping[str, Image.Image]) -> Image.Image:
    """Images of one size in a row, each under its name. Tiny ones are enlarged by a whole factor."""
    pictures = {name: _enlarged(image) for name, image in images.items()}
    width, height = next(iter(pictures.values())).size
    letters = max(14, height // 32)
    sheet = Image.new("RGB", ((width + MARGIN) * len(pictures) - MARGIN, height + 2 * letters), "white")
    write = ImageDraw.Draw(sheet)
    for i, (name, picture) in enumerate(pictures.items()):
        x = i * (width + MARGIN)
        write.text((x + width / 2, letters), name, "black", anchor="mm", font_size=letters)
        sheet.paste(picture, (x, 2 * letters))
    return sheet


def contact_sheet(pictures: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Small pictures of one size in a grid, each above its caption."""
    thumbnails = [_enlarged(picture) for _, picture in pictures]
    for thumbnail in thumbnails:
        thumbnail.thumbnail((thumbnail.width, THUMBNAIL))
    width, height = thumbnails[0].size
    captions = ["\n".join(textwrap.wrap(text, width // 8, max_lines=2, placeholder="...")) for text, _ in pictures]
    cell = width + 2 * MARGIN, height + 5 * MARGIN
    columns = max(1, min(len(pictures), round(math.sqrt(len(pictures) * 1.5 * cell[1] / cell[0]))))
    sheet = Image.new("RGB", (columns * cell[0] + MARGIN, -(-len(pictures) // columns) * cell[1] + MARGIN), "white")
    write = ImageDraw.Draw(sheet)
    for i, (thumbnail, caption) in enumerate(zip(thumbnails, captions, strict=True)):
        x, y = i % columns * cell[0] + MARGIN, i // columns * cell[1] + MARGIN
        sheet.paste(thumbnail, (x, y))
        below = x + width / 2, y + height + 4
        write.multiline_text(below, caption, "black", anchor="ma", align="center", font_size=16)
    return sheet


def _enlarged(image: Image.Image) -> Image.Image:
    """A copy, enlarged by a whole factor if it is tiny: pixels stay squares."""
    factor = max(1, LEAST // max(image.size))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
