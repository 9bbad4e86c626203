"""Which process collects which unit: locks that end with their process, on one machine or on several."""

import contextlib
import errno
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Self

from golden_noise.errors import UserError

_PRESENCE = ".collecting"  # collectors share its lock, whoever deletes their pairs must have it alone


class Claims:
    """The units of a folder that this process collects, each a locked file `.pairs-NNNNNN.claim`.

    It is the lock that counts, not the file: the system drops it whatever ends its process, also on NFS (since Linux
    2.6.12), while only clocks or process numbers, which differ between machines, could tell a dead process's file
    from a live one's. To be used as a context, at whose end all claims are given back.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._presence = contextlib.ExitStack()
        self._held: dict[int, IO[str]] = {}

    def __enter__(self) -> Self:
        self._presence.enter_context(_lock(self.folder / _PRESENCE, fcntl.LOCK_SH))
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._held.values():
            file.close()
        self._held.clear()
        self._presence.close()

    def take(self, unit: int) -> bool:
        """Claim a unit; False if it is somebody's already.

        Raises:
            UserError: the file system has no locks.
        """
        file = self._path(unit).open("w")
        if not _try_lock(file, fcntl.LOCK_EX):
            file.close()
            return False
        self._held[unit] = file
        return True

    def finish(self, unit: int) -> None:
        """Give back a unit that is finished. Whoever waited for its claim will look and see that."""
        if unit in self._held:
            self._path(unit).unlink(missing_ok=True)
            self._held.pop(unit).close()

    def sweep(self) -> None:
        """Delete the files of killed processes' claims, once all units are finished."""
        for path in self.folder.glob(".pairs-*.claim"):
            path.unlink(missing_ok=True)

    def _path(self, unit: int) -> Path:
        return self.folder / f".pairs-{unit:06d}.claim"


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Work in a folder into which nobody collects.

    Raises:
        UserError: somebody does, or the file system has no locks.
    """
    with _lock(folder / _PRESENCE, fcntl.LOCK_EX):
        yield


@contextlib.contextmanager
def _lock(path: Path, kind: int) -> Iterator[None]:
    with path.open("w") as file:
        if not _try_lock(file, kind):
            raise UserError(f"another process works in {path.parent}: wait for it or stop it")
        yield


def _try_lock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise UserError(
                f"the file system of {file.name} has no locks ({error.strerror}), which keep collectors apart:"
                " choose a folder of another one with data_dir=FOLDER"
            ) from error
        raise
    return True
