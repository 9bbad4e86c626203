"""`index.json`: the finished shards of a folder, what is in them, and the configuration that made them."""

import contextlib
import io
import os
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import ValidationError

from golden_noise import identity
from golden_noise.errors import UserError, one_line
from golden_noise.files import atomic_file
from golden_noise.invocation import command
from golden_noise.pairs import layout
from golden_noise.pairs.entry import ShardEntry, dump_entry, parse_entry
from golden_noise.pairs.pair import REDO
from golden_noise.sharing.claims import locked

INDEX_NAME = "index.json"
_VERSION = 2  # 1: prompts are a list, not one text
_LOOKS, _PAUSE = 3, 0.05  # at a file that may be in the middle of a change; seconds between two


@dataclass
class ShardIndex:
    """The finished shards of `folder`, sorted by name, and the resolved `config` that made all of them.

    Methods raise UserError if the folder cannot be read or written, or its index is not as `save` writes it.
    """

    folder: Path
    config: dict[str, Any]
    shards: list[ShardEntry] = field(default_factory=list)
    # What is known of the file: its first line, the last one of a shard, where that ends, whether it is in order, and
    # where two lines are not.
    _opening: bytes = field(default=b"", repr=False, compare=False)
    _last: bytes = field(default=b"", repr=False, compare=False)
    _end: int = field(default=0, repr=False, compare=False)
    _tidy: bool = field(default=True, repr=False, compare=False)
    _disorder: list[tuple[int, bytes]] = field(default_factory=list, repr=False, compare=False)

    @classmethod
    def load(cls, folder: Path) -> "ShardIndex":
        """Read the index of a folder."""
        index = cls(folder, {})
        index.refresh()
        return index

    @classmethod
    def parse(cls, content: bytes, folder: Path, source: object) -> "ShardIndex":
        """The index in the bytes of a file that came from `source`."""
        index = cls(folder, {})
        with _damaged(source):
            index._replace(io.BytesIO(content))
        return index

    @classmethod
    def open(cls, folder: Path, config: Mapping[str, Any], other_prompts: bool = False) -> "ShardIndex":
        """The index of a folder that pairs are collected into, created empty if there is none.

        Args:
            other_prompts: whether the prompts may be described otherwise than in the index, which then takes the new
                description.

        Raises:
            UserError: if the folder holds pairs that another configuration made.
        """
        wanted = identity.plain(config)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / INDEX_NAME).exists():
                with locked(folder):
                    if not (folder / INDEX_NAME).exists():
                        cls(folder, wanted).save()
            index = cls.load(folder)
            if index._renewed(wanted, other_prompts) != index.config:
                with locked(folder):
                    index.refresh()
                    index.config = index._renewed(wanted, other_prompts)
                    index.save()
        changes = identity.changes(index.config, wanted)
        more = changes and all(key.startswith("prompts.") for key, _, _ in changes)
        collect = command("collect")
        advice = f"{collect} with these settings and mode=extend takes more of the same prompts; else " * bool(more)
        advice += f"repeat those settings, or choose another data_dir ({collect} mode=overwrite would delete its pairs)"
        identity.check(folder, index.config, wanted, advice)
        return index

    def _renewed(self, wanted: dict[str, Any], other_prompts: bool) -> dict[str, Any]:
        """The configuration that the index takes, if it may take a new one."""
        if not self.shards:  # nothing was made with the recorded settings
            return wanted
        renewed = self.config | ({"prompts": wanted.get("prompts")} if other_prompts else {})
        return self.config if identity.changes(renewed, wanted) else renewed

    def find(self, name: str) -> ShardEntry | None:
        """The entry of a shard."""
        place = bisect_left(self.shards, name, key=lambda shard: shard.name)
        found = self.shards[place : place + 1]
        return found[0] if found and found[0].name == name else None

    def refresh(self) -> None:
        """Learn what processes have recorded since the last look; reads no more than that."""
        path = self.folder / INDEX_NAME
        for looks_left in reversed(range(_LOOKS)):
            try:
                with _damaged(path), path.open("rb") as file:
                    if self._end and self._goes_on(file):
                        return self._extend(file)
                    file.seek(0)
                    return self._replace(file)
            except FileNotFoundError:
                raise UserError(f"no noise pairs in {self.folder}: run {command('collect')} first") from None
            except OSError as error:
                raise UserError(f"cannot read {path}: {error.strerror}") from error
            except UserError:
                if not looks_left:
                    raise
                time.sleep(_PAUSE)

    def _goes_on(self, file: BinaryIO) -> bool:
        """Whether a file begins with what is known, so that only the rest is to be read.

        It does if the last known line is where it was, and so are the first two neighbours out of order, if there are
        any. A file that was written anew is sorted: such two are no longer neighbours, and among sorted lines one keeps
        its place only if the same lines are before it.
        """
        places = [(0, self._opening), *self._disorder, (self._end - len(self._last), self._last)]
        for place, content in places:
            file.seek(place)
            if file.read(len(content)) != content:
                return False
        return True

    def add(self, entry: ShardEntry) -> None:
        """Record a finished shard, on disk and here, together with what other processes recorded meanwhile."""
        mine = self.config
        self.refresh()  # most of the lines, while nobody waits for the lock
        with writing(self.folder), locked(self.folder):
            self.refresh()
            if identity.changes(self.config, mine):
                self.config, self._end = mine, 0
                raise UserError(f"another process collects other pairs into {self.folder}: choose another folder")
            if not self._end:  # a document of earlier versions
                self.save()
            line = layout.line(dump_entry(entry), first=not self.shards)
            with (self.folder / INDEX_NAME).open("r+b") as file:
                file.truncate(self._end)  # the last line, or what a killed process left
                file.seek(self._end)
                file.write(line + layout.END)
                file.flush()
                os.fsync(file.fileno())
            self._extend([line, layout.END])

    def tidy(self) -> None:
        """Write the lines in order where processes added them in another, so that equal sets are equal files."""
        self.refresh()
        if self._tidy:
            return
        with writing(self.folder), locked(self.folder):
            self.refresh()
            if not self._tidy:  # another process may have been first
                self.save()

    def forget_failures(self) -> None:
        """Remove the shards with failures, so that their units are redone."""
        with writing(self.folder), locked(self.folder):
            self.refresh()
            self.shards = [shard for shard in self.shards if not shard.failures]
            self.save()

    def save(self) -> None:
        """Write the whole file anew."""
        header = {"version": _VERSION, "config": self.config}
        lines = [*layout.render(header, map(dump_entry, self.shards))]
        with atomic_file(self.folder / INDEX_NAME) as file:
            file.writelines(lines)
        self._opening, self._last = lines[0], lines[-2]
        self._end, self._tidy, self._disorder = sum(map(len, lines[:-1])), True, []

    def verify(self) -> None:
        """Check that all files are there with their sizes.

        Lists the folder once: on a shared file system that is much cheaper than asking for each file.

        Raises:
            UserError: one is missing or has another size than recorded.
        """
        present = self.intact()
        for shard in self.shards:
            if shard.name not in present:
                shard.verify(self.folder)

    def intact(self) -> set[str]:
        """Names of the shards whose files are there with their recorded sizes."""
        recorded = {shard.name: shard.bytes for shard in self.shards}
        try:
            with os.scandir(self.folder) as files:
                return {file.name for file in files if file.name in recorded and _size(file) == recorded[file.name]}
        except OSError as error:
            raise UserError(f"cannot list {self.folder}: {error.strerror}") from error

    def _replace(self, file: BinaryIO) -> None:
        """Take a whole file for what is known."""
        document = layout.parse(file)
        if document.header["version"] not in (1, _VERSION) or not isinstance(document.header["config"], dict):
            raise ValueError(f"version {document.header['version']} is not {_VERSION}")
        self.config, self.shards, self._tidy = document.header["config"], [], True
        self._opening = self._last = document.opening
        self._end, self._disorder = len(document.opening), []
        self._extend(document.lines)

    def _extend(self, lines: Iterable[bytes]) -> None:
        """Take the lines that follow what is known."""
        closed = False
        for line in lines:
            if closed:
                raise ValueError("something follows its end")
            closed = line == layout.END
            if not closed and line.endswith(b"\n"):
                follows = self._insert(parse_entry(line.removeprefix(b",")))
                if self._opening:
                    if not follows and not self._disorder:
                        self._disorder = [(self._end - len(self._last), self._last + line)]
                    self._last, self._end = line, self._end + len(line)
        self._tidy = self._tidy and closed

    def _insert(self, entry: ShardEntry) -> bool:
        """Put an entry in its place; returns whether that is the last."""
        if not self.shards or self.shards[-1].name < entry.name:
            self.shards.append(entry)
            return True
        self._tidy = False
        place = bisect_left(self.shards, entry.name, key=lambda shard: shard.name)
        self.shards[place : place + (self.shards[place].name == entry.name)] = [entry]
        return False


def _size(file: "os.DirEntry[str]") -> int | None:
    try:
        return file.stat().st_size if file.is_file() else None
    except FileNotFoundError:  # deleted meanwhile
        return None


@contextlib.contextmanager
def _damaged(source: object) -> Iterator[None]:
    """Turns what a damaged file makes the parsers raise into one line."""
    try:
        yield
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else error
        raise UserError(f"{source} is damaged ({one_line(reason)}): delete it and {REDO}") from error


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns the system's error about a folder that cannot be written into one line."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from error
