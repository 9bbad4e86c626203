"""Where shards come from: a folder, URLs as fsspec opens them (http, https, s3, gs, hf, ...), or `pipe:COMMAND`.

Only the user's own `data_dir` is ever opened or run: an index adds file names of one fixed form to it.
"""

import contextlib
import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

import fsspec
from braceexpand import braceexpand
from filelock import FileLock

from golden_noise.errors import UserError, first_line, one_line
from golden_noise.files import atomic_file
from golden_noise.identity import file_digest
from golden_noise.pairs.entry import ShardEntry
from golden_noise.pairs.index import INDEX_NAME, ShardIndex
from golden_noise.pairs.pair import REDO

_SHARD = re.compile(r"pairs-[0-9]{6}\.tar")
_CHUNK = 1 << 20


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
        self._verified: dict[Path, tuple[int, int]] = {}

    def __str__(self) -> str:
        return self.before.rstrip("/")

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
            index = ShardIndex.parse(b"".join(_chunks(url)), self.folder, url)
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
            if not path.exists() or self._problem(path, shard):
                with atomic_file(path) as file:
                    self._fetch(shard, file)
                self._verified[path] = _stamp(path)
            return path.open("rb")

    def _open_local(self, path: Path, shard: ShardEntry) -> BinaryIO:
        try:
            problem = self._problem(path, shard)
            if problem is None:
                return path.open("rb")
        except OSError as error:
            raise UserError(f"shard {path} cannot be read ({error.strerror or error})") from error
        raise damaged(path, problem)

    def _problem(self, path: Path, shard: ShardEntry) -> str | None:
        """How a file differs from the recorded one."""
        stamp = _stamp(path)
        if self._verified.get(path) == stamp:
            return None
        problem = _difference(shard, stamp[0], file_digest(path) if stamp[0] == shard.bytes else "")
        if problem is None:
            self._verified[path] = stamp
        return problem

    def _fetch(self, shard: ShardEntry, file: BinaryIO) -> None:
        url = self.url(shard.name)
        digest, size = hashlib.sha256(), 0
        for chunk in _chunks(url):
            digest.update(chunk)
            size += len(chunk)
            if size <= shard.bytes:
                file.write(chunk)
        file.flush()
        if problem := _difference(shard, size, digest.hexdigest()):
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
    matches = [(name, _SHARD.search(name)) for name in names]
    if not any(match for _, match in matches):
        if text.startswith("pipe:"):
            raise UserError(f"{text} names no shard: write it like pipe:cat FOLDER/pairs-{{000000..000099}}.tar")
        return text.removeprefix("file://").rstrip("/") + "/", None, ""
    around = {(name[: match.start()], name[match.end() :]) if match else (name, "") for name, match in matches}
    if len(around) > 1:
        raise UserError(f"{text} names more than one folder: give shards of one folder, pairs-{{000000..000099}}.tar")
    ((before, after),) = around
    return before.removeprefix("file://"), [match.group() for _, match in matches if match], after


def is_url(text: str) -> bool:
    """Whether a text is a URL or a command after `pipe:`, and not a path."""
    return bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text))


def _chunks(url: str) -> Iterator[bytes]:
    """A URL's bytes, or what a command after `pipe:` writes.

    Raises:
        UserError: it cannot be read to its end.
    """
    try:
        with _output(url) if url.startswith("pipe:") else fsspec.open(url, block_size=0) as stream:  # 0: as a stream
            while chunk := stream.read(_CHUNK):
                yield chunk
    except ImportError as error:
        raise UserError(f"{url} needs a package that is not installed ({first_line(error)})") from error
    except Exception as error:  # fsspec's file systems raise different errors
        cause = error.__cause__ or error  # fsspec raises FileNotFoundError even if no server answers
        raise UserError(f"{url} cannot be fetched ({type(cause).__name__}: {one_line(cause)})") from error


@contextlib.contextmanager
def _output(url: str) -> Iterator[IO[bytes]]:
    with subprocess.Popen(url.removeprefix("pipe:"), shell=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.stdout
    if process.returncode:
        raise OSError(f"its command ended with exit code {process.returncode}")


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _difference(shard: ShardEntry, size: int, sha256: str) -> str | None:
    if size != shard.bytes:
        return f"{size} bytes instead of {shard.bytes}"
    return None if sha256 == shard.sha256 else f"its checksum is not the one in {INDEX_NAME}"


def damaged(url: object, problem: object) -> UserError:
    """The error for a bad shard."""
    return UserError(f"shard {url} is damaged ({one_line(problem)}): delete it and {REDO}")
