# Vendored from golden_noise/weight_files.py by python -m golden_noise.npnet.vendor; do not edit.
"""Files of weights and their configs: what they hold, and what visibly makes them useless."""

import contextlib
import json
import zipfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from .errors import UserError, first_line

CONFIGS = ("config.json", "model_index.json", "scheduler_config.json")  # each holds an object
WEIGHTS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
POINTER = b"version https://git-lfs.github.com/spec/"
PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml")


def read_tensors(file: Path, source: str) -> Any:
    """The content of a .safetensors file or a torch checkpoint, on the CPU. Nothing in the file is executed.

    Raises:
        UserError: the file is damaged, compressed, or holds other objects than tensors and containers.
    """
    import torch  # these take seconds
    from safetensors.torch import load_file

    try:
        if file.suffix.lower() == ".safetensors":
            return load_file(file)
        if not _is_compressed(file):  # PyTorch does not compress, and a small file could fill the memory
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged or hostile files fail in every way
        reason = f": {fault}" if (fault := damage(file)) else ", or more than tensors: it is not loaded"
        raise UserError(f"{source} holds no tensors{reason}") from error
    raise UserError(f"{source} is not loaded: its tensors are larger than the file")


def _is_compressed(file: Path) -> bool:
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return sum(record.file_size for record in archive.infolist()) > file.stat().st_size


def damage(source: str | Path, weights: bool = True) -> str | None:
    """What visibly makes the files of a model useless; None if nothing does, or if there are none.

    Args:
        source: a file of weights, or a folder of such files and configs, with its subfolders but not theirs: it may
            be any folder, named by mistake.
        weights: whether to check files of weights: a folder may hold some that nobody reads.

    Returns:
        The file's name and what is wrong, such as "model.safetensors is empty".
    """
    path = Path(source).expanduser()
    for file in sorted([*path.glob("*"), *path.glob("*/*")]) if path.is_dir() else [path]:
        fault = None
        with contextlib.suppress(OSError):
            if file.name in CONFIGS:
                fault = _config_fault(file)
            elif file.is_file() and (file == path or (weights and file.suffix.lower() in WEIGHTS)):
                fault = _weights_fault(file)
        if fault:
            return f"{file.name if file == path else file.relative_to(path)} {fault}"
    return None


def _config_fault(file: Path) -> str | None:
    content = file.read_bytes()
    try:
        return None if isinstance(json.loads(content), dict) else "is damaged: it holds no JSON object"
    except (ValueError, RecursionError):
        return _stand_in(content) or "is damaged: it is not JSON"


def _weights_fault(file: Path) -> str | None:
    with file.open("rb") as opened:
        start = opened.read(1024)
    if fault := _stand_in(start):
        return fault
    if start.startswith(b"PK") and not zipfile.is_zipfile(file):
        return "is cut off: its end is missing"
    if start[8:9] == b"{":  # safetensors: the header's length, the header, the tensors
        try:
            with safe_open(file, framework="np"):
                return None
        except SafetensorError as error:
            return f"is cut off or damaged: {first_line(error)}"
    return None


def _stand_in(start: bytes) -> str | None:
    """What is there in place of a file, by its first bytes."""
    if not start:
        return "is empty"
    if start.startswith(POINTER):
        return "is a Git LFS pointer and not the file itself: run `git lfs pull` where it was cloned"
    if start.removeprefix(b"\xef\xbb\xbf").lstrip()[:10].lower().startswith(PAGES):
        return "is a web page and not the file itself: download it again"
    return None
