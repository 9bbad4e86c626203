"""`index.json`: the finished shards of a folder, what is in them, and the configuration that made them."""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from golden_noise import identity
from golden_noise.errors import UserError
from golden_noise.files import atomic_file
from golden_noise.pairs.pair import REDO, Failure
from golden_noise.sharing.claims import locked

INDEX_NAME = "index.json"
_VERSION = 1


@dataclass(frozen=True)
class ShardEntry:
    """A finished shard.

    Attributes:
        name: file name in the folder of the index.
        samples: accepted pairs.
        rejected: rejected pairs.
        bytes: size of the file.
        sha256: checksum of the file.
        prompts: `prompt_hash` of every accepted pair, in the order of the shard.
        asked: `prompts_digest` of all prompts of the unit; empty if nobody recorded it.
        failures: the prompts that gave no pair.
    """

    name: str
    samples: int
    rejected: int
    bytes: int
    sha256: str
    prompts: list[str]
    asked: str = ""
    failures: list[Failure] = field(default_factory=list)

    @property
    def unit(self) -> int:
        """The unit of work that the shard holds."""
        return int(self.name[6:12])

    @property
    def tried(self) -> int:
        """Prompts of the unit, whatever came of them."""
        return self.samples + self.rejected + len(self.failures)

    @classmethod
    def parse(cls, entry: Mapping[str, Any]) -> "ShardEntry":
        """An entry from untrusted JSON; a name that points outside the folder is refused.

        Raises:
            ValueError, TypeError: if the entry is not as the writer makes it.
        """
        failures = [Failure.parse(failure) for failure in entry.get("failures", [])]
        shard = cls(**{**entry, "failures": failures})
        counts = (shard.samples, shard.rejected, shard.bytes)
        if not re.fullmatch(r"pairs-[0-9]{6}\.tar", shard.name):
            raise ValueError(f"{shard.name!r} is no shard name")
        if not re.fullmatch(r"[0-9a-f]{64}", shard.sha256):
            raise ValueError(f"bad checksum of {shard.name}")
        if not re.fullmatch(r"[0-9a-f]{64}|", shard.asked):
            raise ValueError(f"bad digest of the prompts of {shard.name}")
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError(f"bad counts of {shard.name}")
        if len(shard.prompts) != shard.samples:
            raise ValueError(f"{len(shard.prompts)} prompts for the {shard.samples} samples of {shard.name}")
        if not all(re.fullmatch(r"[0-9a-f]{8}", prompt) for prompt in shard.prompts):
            raise ValueError(f"bad prompt hash in {shard.name}")
        return shard

    def is_intact(self, folder: Path) -> bool:
        """Whether the file is there with its recorded size: cheap enough for every shard at every start."""
        path = folder / self.name
        return path.is_file() and path.stat().st_size == self.bytes

    def verify(self, folder: Path) -> None:
        """Check the file without reading it.

        Raises:
            UserError: if the file is missing or has another size than recorded.
        """
        if not self.is_intact(folder):
            path = folder / self.name
            found = f"has {path.stat().st_size} of {self.bytes} bytes" if path.is_file() else "is missing"
            raise UserError(f"shard {path} {found}: delete it from {folder} and {REDO}")


@dataclass
class ShardIndex:
    """The finished shards of `folder`, sorted by name, and the resolved `config` that made all of them."""

    folder: Path
    config: dict[str, Any]
    shards: list[ShardEntry] = field(default_factory=list)

    @classmethod
    def load(cls, folder: Path) -> "ShardIndex":
        """Read the index of a folder.

        Raises:
            UserError: if there is none, or it is not as `save` writes it.
        """
        path = folder / INDEX_NAME
        try:
            return cls.parse(path.read_bytes(), folder, path)
        except FileNotFoundError:
            raise UserError(f"no noise pairs in {folder}: run collect.py first") from None
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error

    @classmethod
    def parse(cls, content: bytes, folder: Path, source: object) -> "ShardIndex":
        """The index in the bytes of a file that came from `source`.

        Raises:
            UserError: if it is not as `save` writes it.
        """
        try:
            parsed = json.loads(content)
            if parsed["version"] != _VERSION or not isinstance(parsed["config"], dict):
                raise ValueError(f"version {parsed['version']} is not {_VERSION}")
            return cls(folder, parsed["config"], [ShardEntry.parse(entry) for entry in parsed["shards"]])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{source} is damaged ({reason}): delete it and {REDO}") from error

    @classmethod
    def open(cls, folder: Path, config: Mapping[str, Any], other_prompts: bool = False) -> "ShardIndex":
        """The index of a folder that pairs are collected into, created empty if there is none.

        Args:
            other_prompts: whether the prompts may be described otherwise than in the index, which then takes the new
                description.

        Raises:
            UserError: if the folder cannot be written or holds pairs that another configuration made.
        """
        wanted = identity.plain(config)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder):
                if not (folder / INDEX_NAME).exists():
                    cls(folder, wanted).save()
                index = cls.load(folder)
                renewed = index.config | ({"prompts": wanted.get("prompts")} if other_prompts else {})
                if not index.shards:  # then the folder has no other settings than a mistake's
                    renewed = wanted
                if index.config != renewed and not identity.changes(renewed, wanted):
                    index = cls(folder, renewed, index.shards)
                    index.save()
        found = identity.changes(index.config, wanted)
        more = found and all(key.startswith("prompts.") for key, _, _ in found)
        advice = "collect.py mode=extend takes more of the same prompts; else " * bool(more)
        advice += "repeat those settings, or choose another data_dir (collect.py mode=overwrite would delete its pairs)"
        identity.check(folder, index.config, wanted, advice)
        return index

    def add(self, entry: ShardEntry) -> None:
        """Record a finished shard, on disk and here, together with what other processes recorded meanwhile.

        Raises:
            UserError: if the folder cannot be written or has meanwhile become another configuration's.
        """
        with writing(self.folder), locked(self.folder):
            current = ShardIndex.load(self.folder)
            if identity.changes(current.config, self.config):
                raise UserError(f"another process collects other pairs into {self.folder}: choose another folder")
            others = [shard for shard in current.shards if shard.name != entry.name]
            self.shards = sorted([*others, entry], key=lambda shard: shard.name)
            self.save()

    def forget_failures(self) -> None:
        """Strike off the shards with failures, so that their units are to be redone.

        Raises:
            UserError: if the folder cannot be written.
        """
        with writing(self.folder), locked(self.folder):
            self.shards = [shard for shard in ShardIndex.load(self.folder).shards if not shard.failures]
            self.save()

    def save(self) -> None:
        """Write `index.json` atomically."""
        shards = [asdict(shard) for shard in self.shards]
        content = {"version": _VERSION, "config": self.config, "shards": shards}
        with atomic_file(self.folder / INDEX_NAME) as file:
            file.write(json.dumps(content, sort_keys=True).encode())


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns what the system says of a folder that cannot be written into one line."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from error
