"""Where shards come from: a folder, URLs as fsspec opens them (http, https, s3, gs, hf, ...), or `pipe:COMMAND`.

Only the user's own `data_dir` is ever opened or run: an index adds file names of one fixed form to it.
"""

import contextlib
import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from braceexpand import braceexpand
from filelock import FileLock
from tqdm import tqdm

from golden_noise.errors import UserError, one_line
from golden_noise.files import atomic_file, is_machines
from golden_noise.pairs import transfer
from golden_noise.pairs.entry import ShardEntry
from golden_noise.pairs.index import INDEX_NAME, ShardIndex
from golden_noise.pairs.pair import REDO
from golden_noise.urls import is_url

SHARD = re.compile(r"pairs-[0-9]{6}\.tar")
_FETCHES = 2  # of a shard that is not the recorded one: a proxy may have spoilt the first


class ShardSource:
    """The shards below a folder or URL, opened as local files that are what the index says.

    A shard of a URL is fetched whole, since pairs are read in random order. With a cache it is fetched once, whichever
    process needs it first; without one, each process fetches it when it needs it and leaves nothing behind.

    Args:
        data_dir: a folder or a URL with `index.json` in it, or shards of it by name, also with braces:
            `https://HOST/PATH/pairs-{000000..000099}.tar`, `pipe:ssh HOST cat PATH/pairs-{000000..000099}.tar`. The
            index is then read from the URL with its name instead of the shard's.
        cache: folder for what is fetched from a URL.

    Raises:
        UserError: `data_dir` is neither.
    """

    def __init__(self, data_dir: str | Path, cache: str | Path | None = None):
        self.before, self.names, self.after = _parse(str(data_dir))
        self.is_url = is_url(self.before)
        self.folder = Path(self.before)  # only of shards that have no URL
        self.cache = Path(cache) if cache is not None else None
        self._verified: dict[Path, tuple[int, int, int]] = {}

    def __str__(self) -> str:
        return self.before.rstrip("/")

    @property
    def is_whole_folder(self) -> bool:
        """Whether it is all of a local folder, into which pairs can be collected."""
        return not self.is_url and self.names is None

    def url(self, name: str) -> str:
        """URL or path of a file beside the shards."""
        return f"{self.before}{name}{self.after}"

    def load_index(self) -> ShardIndex:
        """The index with the chosen shards; missing and truncated files of a folder are noticed here.

        Raises:
            UserError: there is no index, or a shard is not in it, missing or truncated.
        """
        if self.is_url:
            url = self.url(INDEX_NAME)
            index = ShardIndex.parse(transfer.read(url), self.folder, url)
        else:
            index = ShardIndex.load(self.folder)
        if self.names is not None:
            known = {shard.name: shard for shard in index.shards}
            if unknown := [name for name in self.names if name not in known]:
                raise UserError(f"{self.url(INDEX_NAME)} does not list {unknown[0]}: name other shards with data_dir")
            index.shards = [known[name] for name in self.names]
        if not self.is_url:
            index.verify()
        return index

    def open(self, shard: ShardEntry) -> BinaryIO:
        """A shard as a local file whose size and checksum are the recorded ones.

        It is read for its checksum once, and again only if it has changed since.

        Raises:
            UserError: it is missing or another one, or cannot be fetched.
        """
        if not self.is_url:
            return self._open_local(self.folder / shard.name, shard)
        if self.cache is None:
            file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115
            self._fetch(shard, file)
            return file
        path = self.cache / f"{Path(shard.name).stem}-{shard.sha256[:16]}.tar"
        with self._alone(path):
            if path.exists():
                with contextlib.suppress(UserError):
                    return self._open_local(path, shard)
            with atomic_file(path) as file:
                self._fetch(shard, file)
            self._verified[path] = stamp(path)
            return self._open_local(path, shard)

    def _open_local(self, path: Path, shard: ShardEntry) -> BinaryIO:
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(path.open("rb"))
                problem = self._problem(file, path, shard)
            except OSError as error:
                raise UserError(f"shard {path} cannot be read ({error.strerror or error})") from error
            if problem:
                raise damaged(path, problem)
            stack.pop_all()  # stays open
            return file

    def _problem(self, file: BufferedReader, path: Path, shard: ShardEntry) -> str | None:
        """How the open file of a path differs from the recorded one."""
        before = stamp(file.fileno())
        if self._verified.get(path) == before:
            return None
        digest = hashlib.file_digest(file, "sha256").hexdigest() if before[0] == shard.bytes else ""
        problem = _difference(shard, before[0], digest)
        if problem is None:
            self._verified[path] = before
        return problem

    def _fetch(self, shard: ShardEntry, file: BinaryIO) -> None:
        url = self.url(shard.name)
        for left in reversed(range(_FETCHES)):
            problem = _fetch_once(shard, url, file)
            if problem is None:
                return
            if left:
                tqdm.write(f"{url} was not fetched as recorded ({problem}): fetching it again", file=sys.stderr)
        raise damaged(url, problem)

    @contextlib.contextmanager
    def _alone(self, path: Path) -> Iterator[None]:
        """Keeps other processes from fetching the same shard."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):
                yield
        except OSError as error:
            raise UserError(f"data.cache={self.cache} cannot be written: {error.strerror or error}") from error


def _parse(text: str) -> tuple[str, list[str] | None, str]:
    """What stands before a shard's name, the names if some were chosen, and what stands after it."""
    try:
        names = [text] if os.path.isdir(text) else list(braceexpand(text))
    except ValueError as error:
        raise UserError(f"{text} cannot be expanded: {error}") from error
    matches = [(name, SHARD.search(name)) for name in names]
    if not any(match for _, match in matches):
        if text.startswith("pipe:"):
            raise UserError(f"{text} names no shard: write it like pipe:cat FOLDER/pairs-{{000000..000099}}.tar")
        return text.removeprefix("file://").rstrip("/") + "/", None, ""
    around = {(name[: match.start()], name[match.end() :]) if match else (name, "") for name, match in matches}
    if len(around) > 1:
        raise UserError(f"{text} names more than one folder: give shards of one folder, pairs-{{000000..000099}}.tar")
    ((before, after),) = around
    return before.removeprefix("file://"), [match.group() for _, match in matches if match], after


def _fetch_once(shard: ShardEntry, url: str, file: BinaryIO) -> str | None:
    """Fill a file with what is behind a URL; how that differs from the recorded shard."""
    file.seek(0)
    file.truncate()
    digest, size = hashlib.sha256(), 0
    for chunk in transfer.chunks(url):
        digest.update(chunk)
        size += len(chunk)
        if size <= shard.bytes:
            file.write(chunk)
    file.flush()
    return _difference(shard, size, digest.hexdigest())


def stamp(file: Path | int) -> tuple[int, int, int]:
    """What of a file, by its path or number, differs after any change: its size, time and identity."""
    status = os.stat(file)
    return status.st_size, status.st_mtime_ns, status.st_ino


def _difference(shard: ShardEntry, size: int, sha256: str) -> str | None:
    if size != shard.bytes:
        return f"{size} bytes instead of {shard.bytes}"
    return None if sha256 == shard.sha256 else f"its checksum is not the one in {INDEX_NAME}"


def damaged(url: object, problem: object) -> UserError:
    """The error for a bad shard, or for one that cannot be read now."""
    if is_machines(problem):
        return UserError(f"shard {url} cannot be read ({one_line(problem)}): rerun the same command once it can")
    return UserError(f"shard {url} is damaged ({one_line(problem)}): delete it and {REDO}")
