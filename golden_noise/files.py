"""Files and folders that appear whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def atomic_file(path: Path, durable: bool = True) -> Iterator[BinaryIO]:
    """A file that appears under its name only once it is whole, whenever the process is killed.

    A killed process leaves `.NAME.tmp`, which the next attempt at the same file overwrites.

    Args:
        durable: whether to sync it to the disk, so that it survives a power cut. That takes milliseconds.
    """
    temporary = _temporary(path)
    with temporary.open("wb") as file:
        yield file
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.replace(temporary, path)
    if durable:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name itself survives a power cut only after this
        finally:
            os.close(folder)


def write_atomically(path: Path, text: str) -> None:
    """Write UTF-8 text as an `atomic_file`."""
    with atomic_file(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """An empty folder that takes its name, and replaces an older one, only once it is filled."""
    temporary = _temporary(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    yield temporary
    shutil.rmtree(path, ignore_errors=True)
    temporary.rename(path)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")
