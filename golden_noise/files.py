"""Files that appear whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name only once it is whole and on the disk, kill or power cut regardless.

    What a killed process leaves is `.NAME.tmp`, which the next attempt at the same file overwrites.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name itself survives a power cut only after this
    finally:
        os.close(folder)


def write_atomically(path: Path, text: str) -> None:
    """Write UTF-8 text as an `atomic_file`."""
    with atomic_file(path) as file:
        file.write(text.encode())
