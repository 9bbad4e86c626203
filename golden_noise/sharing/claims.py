"""Which process does which unit of a job: locks that end with their process, on one machine or on several.

Claims are locks of the system itself: `filelock` has no shared locks, and on a file system without locks it falls back
to files that outlive a killed process.
"""

import contextlib
import errno
import fcntl
import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Self
from weakref import WeakSet

from filelock import FileLock

from golden_noise.errors import UserError

POLL = 0.5  # seconds between two looks at what other processes have finished, at first
_LONGEST = 10.0  # after a long wait: a thousand processes would keep a server busy with their looks
_TRIES = 8  # claims of others in a row after which to wait, likewise
_PRESENCE = ".working-on-{}"  # shared by workers; exclusive for whoever deletes what they made
_WRITING = ".writing"
_LOCKED: WeakSet[IO[str]] = WeakSet()  # by this process


def _leave_locks_to_the_parent() -> None:
    """Close a forked process's copies: a DataLoader's worker would hold a killed training's locks until it notices."""
    for file in _LOCKED:
        _close(file)


os.register_at_fork(after_in_child=_leave_locks_to_the_parent)


class Claims:
    """The units of a folder that this process works on, each a locked file `.NAME-NNNNNN.claim`.

    The lock counts, not the file: the system drops it whatever ends its process, also on NFS (since Linux 2.6.12).
    Clocks and process numbers, which differ between machines, could not tell a dead process's file from a live one's.
    Used as a context, at whose end all claims are given back.

    Args:
        folder: that the processes share.
        name: of what the units are, such as "pairs".

    Raises:
        UserError: on use, if the file system has no locks.
    """

    def __init__(self, folder: Path, name: str):
        self.folder, self.name = folder, name
        self._presence = contextlib.ExitStack()
        self._held: dict[int, IO[str]] = {}

    def __enter__(self) -> Self:
        self._presence.enter_context(_lock(self.folder / _PRESENCE.format(self.name), fcntl.LOCK_SH))
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._held.values():
            _close(file)
        self._held.clear()
        self._presence.close()

    def share(
        self,
        units: Iterable[int],
        is_finished: Callable[[int], bool] = lambda _: False,
        refresh: Callable[[], object] = lambda: None,
        waiting: Callable[[], object] = lambda: None,
    ) -> Iterator[int]:
        """Gives unfinished units, each claimed for this process, until all are finished or were given here.

        One process gets them in order. One that meets a unit of another goes on at a random place, so that a thousand
        do not try the same ones. Units of other processes are waited for, and given if their process dies. The caller
        calls `finish` for each unit that is done.

        Args:
            units: those that were not finished at the last look.
            is_finished: whether a unit is, as far as `refresh` has seen.
            refresh: looks at what other processes have finished.
            waiting: called when only units of other processes are left.
        """
        left, others, since = deque(units), deque[int](), time.monotonic()
        while left or others:
            if not left or len(others) == _TRIES:
                if not left:
                    waiting()
                time.sleep(min(max(POLL, (time.monotonic() - since) / 10), _LONGEST))
                refresh()
                left, others = others + left, deque()
            unit = left.popleft()
            if is_finished(unit):
                continue
            if not self.take(unit):
                others.append(unit)
                left.rotate(-secrets.randbelow(len(left) + 1))
                continue
            refresh()
            if is_finished(unit):
                self.finish(unit)
                continue
            yield unit
            left, others, since = left + others, deque(), time.monotonic()

    def take(self, unit: int) -> bool:
        """Claim a unit; False if another process has it."""
        file = self._path(unit).open("w")
        if not try_lock(file):
            _close(file)
            return False
        self._held[unit] = file
        return True

    def finish(self, unit: int) -> None:
        """Give back a finished unit. A process that waited for its claim looks again whether it is finished."""
        if unit in self._held:
            self._path(unit).unlink(missing_ok=True)
            _close(self._held.pop(unit))

    def sweep(self) -> None:
        """Delete the files of killed processes' claims, once all units are finished."""
        for path in self.folder.glob(f".{self.name}-*.claim"):
            path.unlink(missing_ok=True)

    def _path(self, unit: int) -> Path:
        return self.folder / f".{self.name}-{unit:06d}.claim"


@contextlib.contextmanager
def alone(folder: Path, name: str) -> Iterator[None]:
    """Work in a folder while no other process does or shares units of that name.

    Raises:
        UserError: another process does, or the file system has no locks.
    """
    with _lock(folder / _PRESENCE.format(name), fcntl.LOCK_EX):
        yield


def is_lock(name: str) -> bool:
    """Whether a file of this name is a lock's."""
    return name == _WRITING or name.startswith(_PRESENCE.format(""))


def locked(folder: Path) -> FileLock:
    """A folder's lock for short work: a context that waits for it."""
    return FileLock(folder / _WRITING)


@contextlib.contextmanager
def _lock(path: Path, operation: int) -> Iterator[None]:
    file = path.open("w")
    try:
        if not try_lock(file, operation):
            raise UserError(f"another process works in {path.parent}: wait for it or stop it")
        yield
    finally:
        _close(file)


def _close(file: IO[str]) -> None:
    """Close a lock's file, into which nothing was written: an error of its disk means nothing."""
    with contextlib.suppress(OSError):
        file.close()


def try_lock(file: IO[str], operation: int = fcntl.LOCK_EX) -> bool:
    """Lock an open file; False if another process has it. A UserError if the file system has no locks."""
    try:
        fcntl.flock(file, operation | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise UserError(
                f"the file system of {file.name} has no locks ({error.strerror}), which processes need to share work:"
                " choose a folder on another one with data_dir=FOLDER or paths.outputs=FOLDER"
            ) from error
        raise
    _LOCKED.add(file)
    return True
