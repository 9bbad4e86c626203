"""Measured numbers, kept on disk under digests of what was measured."""

import json
import math
import os
from pathlib import Path

from filelock import FileLock


class Cache:
    """Floats by key in a file that is only appended to; what a kill cuts off is measured again.

    The first number of a key stays: the rounding of a score depends on the batch, and the same image must tie with
    itself. Keys are digests of contents (see `identity.digest`), so a replaced image or another metric never gets an
    old number. Several processes may use the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._values: dict[str, float] = {}
        self._read = 0  # bytes
        self.refresh()

    def refresh(self) -> None:
        """Read what was added to the file since the last look, by other processes."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._read)
            whole, end, _ = file.read().rpartition(b"\n")  # a line that a kill cut off has no end yet
        self._read += len(whole) + len(end)
        for line in whole.decode("utf-8", errors="replace").split("\n"):
            if entry := _entry(line):
                self._values.setdefault(*entry)

    def get(self, keys: list[str]) -> list[float] | None:
        """The numbers of all keys, or None if any of them is missing."""
        return [self._values[key] for key in keys] if all(key in self._values for key in keys) else None

    def put(self, values: dict[str, float]) -> None:
        """Keep numbers; those that are not finite are dropped, and so measured again."""
        finite = {key: value for key, value in values.items() if key not in self._values and math.isfinite(value)}
        if not finite:
            return
        self._values |= finite
        lines = "".join(json.dumps([key, value]) + "\n" for key, value in finite.items())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path.with_name(f".{self.path.name}.lock"))  # processes write one after the other
        with lock, self.path.open("ab+") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 1))
            torn = file.read(1) not in (b"", b"\n")
            file.write(b"\n" * torn + lines.encode())
            file.flush()
            os.fsync(file.fileno())


def _entry(line: str) -> tuple[str, float] | None:
    try:
        name, value = json.loads(line)
        return (name, float(value)) if isinstance(name, str) and math.isfinite(value) else None
    except (ValueError, TypeError):
        return None
