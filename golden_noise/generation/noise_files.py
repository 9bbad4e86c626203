"""Starting noise in files: what an image started from, and noise of the user's to start from.

Shapes: N noises, C latent channels, H x W latent size.
"""

import io
import json
import math
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from golden_noise.errors import UserError, first_line, one_line
from golden_noise.files import atomic_file

FORMATS = (".safetensors", ".npy", ".npz")
NAME = "noise"
HEADER = 2**20  # bytes that a file may have beside its numbers
USUAL = (0.5, 2.0)  # standard deviations of what is meant to be of unit variance


def save_noise(noise: Tensor, path: Path, facts: dict[str, Any]) -> None:
    """Save the noise (C, H, W) of one image as the tensor `noise` (1, C, H, W) float32 of a safetensors file.

    Args:
        facts: for the file's metadata: JSON under `about`, since of several keys the order would vary.
    """
    with atomic_file(path, durable=False) as file:
        file.write(save({NAME: noise[None].float().cpu().contiguous()}, metadata={"about": json.dumps(facts)}))


def read_noise(source: str, shape: Sequence[int], count: int) -> Tensor:
    """The noise of a file: one for all images, or one for each.

    The file is not trusted: nothing in it is executed, and it is not read if it is larger than it can need to be.

    Args:
        source: .safetensors, .npy or .npz, which holds one array of floating point numbers, or one called `noise`.
        shape: (C, H, W) of the pipeline's latents.
        count: of the images.

    Returns:
        (N, C, H, W) float32 for N of 1 or `count`.

    Raises:
        UserError: no such file, or it holds something else.
    """
    file = Path(source).expanduser()
    if file.suffix.lower() not in FORMATS:
        raise UserError(f"noise_file={source} must end with {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    try:
        if not file.is_file():
            raise UserError(f"noise_file={source} does not exist")
        noise = _read(file, most=HEADER + 8 * count * math.prod(shape))
    except UserError:
        raise
    except Exception as error:  # damaged or hostile files fail in every way
        raise UserError(f"noise_file={source} cannot be read ({first_line(error)}): is it complete?") from error
    if not noise.is_floating_point():
        raise UserError(f"noise_file={source} holds {str(noise.dtype).removeprefix('torch.')} and no noise")
    if tuple(noise.shape) not in [tuple(shape), (1, *shape), (count, *shape)]:
        raise UserError(
            f"noise_file={source} has the shape {tuple(noise.shape)}, which is neither {tuple(shape)} nor "
            f"{(count, *shape)}, of one noise or one for each image"
        )
    noise = noise.float().reshape(-1, *shape)
    if not noise.isfinite().all():
        raise UserError(f"noise_file={source} holds numbers that are not finite")
    if not USUAL[0] <= (std := float(noise.std())) <= USUAL[1]:
        print(
            f"warning: noise_file={source} has the standard deviation {std:.2g}; samplers expect about 1 and scale it",
            file=sys.stderr,
        )
    return noise


def _read(file: Path, most: int) -> Tensor:
    """The one array in a file, or the one called `noise`."""
    if file.stat().st_size > most:
        raise UserError(f"noise_file={file} has {file.stat().st_size:,} bytes, far more than the noise of these images")
    data = file.read_bytes()
    if file.suffix.lower() == ".safetensors":
        return _only(load(data), file)
    if file.suffix.lower() == ".npy":
        return _array(data, file)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        record = _only({Path(record.filename).stem: record for record in archive.infolist()}, file)
        if record.file_size > most:
            raise UserError(f"noise_file={file} is not read: it unpacks to {record.file_size:,} bytes")
        with archive.open(record) as unpacked:  # in steps of this size: what a header states may be false
            return _array(unpacked.read(most + 1), file)


def _array(data: bytes, file: Path) -> Tensor:
    array = np.load(io.BytesIO(data), allow_pickle=False)
    try:
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
    except TypeError:
        kind = one_line(array.dtype, 40)
        raise UserError(f"noise_file={file} holds {kind}, which torch does not have: save float32") from None


def _only(entries: dict[str, Any], file: Path) -> Any:
    if NAME not in entries and len(entries) != 1:
        names = ", ".join(sorted(entries)) or "nothing"
        raise UserError(f"noise_file={file} holds {names}: give it one array, or one called {NAME}")
    return entries[NAME if NAME in entries else next(iter(entries))]
