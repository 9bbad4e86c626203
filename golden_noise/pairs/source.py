"""Where shards come from: a folder, or URLs as webdataset opens them (http, https, s3, gs, hf, `pipe:COMMAND`, ...).

Only the user's own `data_dir` is ever opened or run: an index adds file names of one fixed form to it.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from webdataset.gopen import gopen, gopen_schemes
from webdataset.shardlists import expand_urls

from golden_noise.errors import UserError
from golden_noise.files import atomic_file
from golden_noise.pairs.index import INDEX_NAME, ShardEntry, ShardIndex
from golden_noise.pairs.pair import REDO

_SHARD = re.compile(r"pairs-[0-9]{6}\.tar")
_CHUNK = 1 << 20


class ShardSource:
    """The shards below a folder or URL, opened as local files that are what the index says.

    A shard of a URL is fetched whole, since pairs are read in random order. With a cache it is fetched once, whichever
    process needs it first; without one, each process fetches it when it needs it and leaves nothing behind.

    Args:
        data_dir: a folder or a URL with `index.json` in it, or shards of it by name, perhaps with braces:
            `https://HOST/PATH/pairs-{000000..000099}.tar`, `pipe:ssh HOST cat PATH/pairs-{000000..000099}.tar`. The
            index is then found by putting its name in the place of the shard's.
        cache: folder for what is fetched from a URL.

    Raises:
        UserError: `data_dir` is neither.
    """

    def __init__(self, data_dir: str | Path, cache: str | Path | None = None):
        self.before, self.names, self.after = _parse(str(data_dir))
        self.is_url = is_url(self.before)
        self.cache = Path(cache) if cache is not None else None
        self._verified: dict[Path, tuple[int, int]] = {}

    def __str__(self) -> str:
        return self.before.rstrip("/")

    @property
    def folder(self) -> Path:
        """The folder of shards that are no URL's."""
        return Path(self.before)

    def place(self, name: str) -> str:
        """Path or URL of a file beside the shards."""
        return f"{self.before}{name}{self.after}"

    def load_index(self) -> ShardIndex:
        """The index with the chosen shards; missing and truncated files of a folder are noticed here.

        Raises:
            UserError: there is no index, or a shard is not in it, missing or truncated.
        """
        if self.is_url:
            place = self.place(INDEX_NAME)
            with _reading(place) as stream:
                content = stream.read()
            index = ShardIndex.parse(content, Path(self.before), place)
        else:
            index = ShardIndex.load(self.folder)
        if self.names is not None:
            known = {shard.name: shard for shard in index.shards}
            if unknown := [name for name in self.names if name not in known]:
                raise UserError(f"{self.place(INDEX_NAME)} does not list {unknown[0]}: name other shards with data_dir")
            index.shards = [known[name] for name in self.names]
        if not self.is_url:
            for shard in index.shards:
                shard.verify(self.folder)
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
        """What distinguishes a file from the recorded one."""
        stamp = _stamp(path)
        if self._verified.get(path) == stamp:
            return None
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest() if stamp[0] == shard.bytes else ""
        problem = _difference(shard, stamp[0], sha256)
        if problem is None:
            self._verified[path] = stamp
        return problem

    def _fetch(self, shard: ShardEntry, file: BinaryIO) -> None:
        place = self.place(shard.name)
        digest, size = hashlib.sha256(), 0
        with _reading(place) as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
                if size <= shard.bytes:
                    file.write(chunk)
        file.flush()
        if problem := _difference(shard, size, digest.hexdigest()):
            raise damaged(place, problem)

    @contextlib.contextmanager
    def _alone(self, path: Path) -> Iterator[None]:
        """Keeps other processes from fetching the same shard; the lock ends with its process."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise UserError(f"data.cache={self.cache} cannot be written: {error.strerror or error}") from error


def _parse(text: str) -> tuple[str, list[str] | None, str]:
    """What stands before a shard's name, the names if some were chosen, and what stands after it."""
    try:
        names = [text] if os.path.isdir(text) else expand_urls(text)
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
    """Whether a place is none on this machine: a URL, or a command after `pipe:`."""
    return bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text))


@contextlib.contextmanager
def _reading(place: str) -> Iterator[BinaryIO]:
    """A URL's bytes.

    Raises:
        UserError: the program that webdataset opens it with is missing or reports an error.
    """
    try:
        with gopen(_command(place)) as stream:
            yield stream
    except FileNotFoundError as error:
        raise UserError(f"{place} needs the program {error.filename!r}: install it, or use pipe:COMMAND") from error
    except OSError as error:
        status = re.search(r"exit (-?[0-9]+)", str(error))
        reason = f"its command ended with exit code {status[1]}" if status else str(error)
        raise UserError(f"{place} cannot be fetched ({' '.join(reason.split())[:200]})") from error
    except ValueError as error:  # no handler
        known = ", ".join(sorted({"s3", *gopen_schemes} - {"__default__"}))
        raise UserError(f"{place} cannot be opened: data_dir may be a folder or a URL of {known}") from error


def _command(place: str) -> str:
    """webdataset itself opens s3 only through AIStore."""
    if place.startswith("s3:") and "s3" not in gopen_schemes:
        if shutil.which("aws") is None:
            raise FileNotFoundError(2, "not installed", "aws")
        return f"pipe:aws s3 cp --quiet {shlex.quote(place)} -"
    return place


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _difference(shard: ShardEntry, size: int, sha256: str) -> str | None:
    if size != shard.bytes:
        return f"{size} bytes instead of {shard.bytes}"
    return None if sha256 == shard.sha256 else f"its checksum is not the one in {INDEX_NAME}"


def damaged(place: object, problem: object) -> UserError:
    """The error for a bad shard, on one line whatever text the problem brings along."""
    reason = " ".join(str(problem).split())[:200]
    return UserError(f"shard {place} is damaged ({reason}): delete it and {REDO}")
