"""Numbers that took long to measure, kept on disk by what they were measured on."""

import json
import math
import os
from pathlib import Path


class Cache:
    """Floats by key in a file that is only ever appended to; what a kill cuts off is measured again.

    The first number of a key stays: the rounding of a score depends a little on the batch, and the same image must tie
    with itself. Keys are made of contents (see `identity.digest`), so a replaced image or another metric never gets an
    old number.
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
