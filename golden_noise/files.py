"""Files and folders that appear whole or not at all."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# No program causes them.
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE}


def is_machines(error: object) -> bool:
    """Whether an error is the machine's, of its disk or memory, and says nothing of what is in a file."""
    failed = isinstance(error, OSError) and error.errno in {*DISK_ERRORS, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
    return failed or isinstance(error, MemoryError) or "unable to mmap" in str(error)  # as torch says it


@contextlib.contextmanager
def atomic_file(path: Path, durable: bool = True) -> Iterator[BinaryIO]:
    """A file that appears under its name only once it is whole, whenever the process is killed.

    A killed process leaves `.NAME.tmp`, which the next attempt at the same file overwrites. Processes that may write
    the same file take turns by a lock of their own.

    Args:
        durable: whether to sync it to the disk, so that it survives a power cut. That takes milliseconds.
    """
    temporary = _temporary(path)
    with naming(path):
        try:
            with temporary.open("wb") as file:
                yield file
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()  # on a full disk its space is needed
            raise
        if durable:
            _sync_name(path)


def write_atomically(path: Path, text: str) -> None:
    """Write UTF-8 text as an `atomic_file`."""
    with atomic_file(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """An empty folder that takes its name, and replaces an older one, only once it is filled.

    A process that is killed between the two leaves the older one as `.NAME.old`, which the next attempt puts back.
    """
    temporary, old = _temporary(path), path.with_name(f".{path.name}.old")
    if old.exists() and not path.exists():
        old.rename(path)
    for left in (temporary, old):
        shutil.rmtree(left, ignore_errors=True)
    temporary.mkdir(parents=True)
    yield temporary
    if path.exists():
        path.rename(old)
    try:
        temporary.rename(path)
    except OSError:
        if old.exists():
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _sync_name(path: Path) -> None:
    """Only after this does the new name of a file itself survive a power cut."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Adds the file to errors of its disk, which reading and writing do not name."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_ERRORS and error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")
