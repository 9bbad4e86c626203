"""Numbers that took long to measure, kept on disk by what they were measured on; and what that was made with."""

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

from golden_noise.weights import BUNDLED, PACKAGE

SAMPLES, BLOCK = 256, 256 * 1024  # of a large file: 64 MiB in all


class Cache:
    """Floats by key in a file that is only ever appended to; what a kill cuts off is measured again.

    The first number of a key stays: the rounding of a score depends a little on the batch, and the same image must tie
    with itself. Keys are made of contents (see :func:`key`), so a replaced image or another metric never gets an old
    number.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._values: dict[str, float] = {}
        text = path.read_text("utf-8", errors="replace") if path.exists() else ""
        for line in text.splitlines():
            found = _entry(line)
            if found:
                self._values[found[0]] = found[1]
        self._torn = bool(text) and not text.endswith("\n")

    def get(self, keys: list[str]) -> list[float] | None:
        """The numbers of all keys, or None if any of them is missing."""
        return [self._values[key] for key in keys] if all(key in self._values for key in keys) else None

    def put(self, values: dict[str, float]) -> None:
        """Keep numbers; those that are not finite are left out, so that they are measured again."""
        finite = {key: value for key, value in values.items() if key not in self._values and math.isfinite(value)}
        self._values |= finite
        lines = "".join(json.dumps([key, value]) + "\n" for key, value in finite.items())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" * self._torn + lines)
            file.flush()
            os.fsync(file.fileno())
        self._torn = False


def _entry(line: str) -> tuple[str, float] | None:
    try:
        name, value = json.loads(line)
        return (name, float(value)) if isinstance(name, str) and math.isfinite(value) else None
    except (ValueError, TypeError):
        return None


def key(*parts: Any) -> str:
    """A short name for what a number was measured on: a hash of plain containers."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def local_files(settings: Any) -> dict[str, str]:
    """Digests of the files and folders on this machine that settings name: other weights may come to the same place.

    They are of contents: dates change where nothing else does (a copy), and the header of a safetensors file, which
    tells shapes only, is the same for every training of a model. So that gigabytes are not read at every start, of a
    large file evenly spaced samples count; no training leaves all of them as they were.
    """
    if isinstance(settings, dict):
        return {name: digest for value in settings.values() for name, digest in local_files(value).items()}
    if not isinstance(settings, str) or not settings:
        return {}
    bundled = settings.startswith(BUNDLED)
    place = PACKAGE / settings.removeprefix(BUNDLED) if bundled else Path(settings).expanduser()
    try:
        files = sorted(path for path in (place.rglob("*") if place.is_dir() else [place]) if path.is_file())
    except (OSError, ValueError):  # too long for a path, or with a null character
        return {}
    return (
        {settings: key([(path.relative_to(place).as_posix(), sampled_digest(path)) for path in files])} if files else {}
    )


def sampled_digest(path: Path) -> str:
    """Hash of a file's content, or of its size and SAMPLES blocks from start to end where it is larger than these."""
    size = path.stat().st_size
    if size <= SAMPLES * BLOCK:
        return file_digest(path)
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for i in range(SAMPLES):
            file.seek(i * (size - BLOCK) // (SAMPLES - 1))
            digest.update(file.read(BLOCK))
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """Hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
