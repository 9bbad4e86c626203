"""`index.json`: the finished shards of a folder, what is in them, and the configuration that made them."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from golden_noise import identity
from golden_noise.errors import UserError, one_line
from golden_noise.files import write_atomically
from golden_noise.invocation import command
from golden_noise.pairs.pair import REDO, Failure
from golden_noise.sharing.claims import locked

INDEX_NAME = "index.json"
_VERSION = 1
Count = Annotated[int, Field(strict=True, ge=0)]


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
        prompts_sha256: `prompts_digest` of all prompts of the unit, "asked" on disk; empty if it was not recorded.
        failures: the prompts that gave no pair.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern=r"^pairs-[0-9]{6}\.tar$")]  # a path could lead out of the folder
    samples: Count
    rejected: Count
    bytes: Count
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    prompts: list[Annotated[str, Field(pattern="^[0-9a-f]{8}$")]]
    prompts_sha256: Annotated[str, Field(alias="asked", pattern="^([0-9a-f]{64})?$")] = ""
    failures: list[Failure] = field(default_factory=list)

    @property
    def unit(self) -> int:
        return int(self.name[6:12])

    @property
    def tried(self) -> int:
        """Prompts of the unit, whatever came of them."""
        return self.samples + self.rejected + len(self.failures)

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
            problem = f"has {path.stat().st_size} of {self.bytes} bytes" if path.is_file() else "is missing"
            raise UserError(f"shard {path} {problem}: delete it from {folder} and {REDO}")


_ENTRIES = TypeAdapter(list[ShardEntry])


@dataclass
class ShardIndex:
    """The finished shards of `folder`, sorted by name, and the resolved `config` that made all of them.

    Methods raise UserError if the folder cannot be read or written, or its index is not as `save` writes it.
    """

    folder: Path
    config: dict[str, Any]
    shards: list[ShardEntry] = field(default_factory=list)

    @classmethod
    def load(cls, folder: Path) -> "ShardIndex":
        """Read the index of a folder."""
        path = folder / INDEX_NAME
        try:
            return cls.parse(path.read_bytes(), folder, path)
        except FileNotFoundError:
            raise UserError(f"no noise pairs in {folder}: run {command('collect')} first") from None
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error

    @classmethod
    def parse(cls, content: bytes, folder: Path, source: object) -> "ShardIndex":
        """The index in the bytes of a file that came from `source`."""
        try:
            parsed = json.loads(content)
            if not isinstance(parsed, dict):
                raise ValueError("it holds no JSON object")
            if parsed["version"] != _VERSION or not isinstance(parsed["config"], dict):
                raise ValueError(f"version {parsed['version']} is not {_VERSION}")
            shards = _ENTRIES.validate_python(parsed["shards"])
            for shard in shards:
                if len(shard.prompts) != shard.samples:
                    raise ValueError(f"{len(shard.prompts)} prompts for the {shard.samples} samples of {shard.name}")
            return cls(folder, parsed["config"], shards)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            first = error.errors()[0] if isinstance(error, ValidationError) else None
            reason = f"shards.{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else error
            raise UserError(f"{source} is damaged ({one_line(reason)}): delete it and {REDO}") from error

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
            with locked(folder):
                if not (folder / INDEX_NAME).exists():
                    cls(folder, wanted).save()
                index = cls.load(folder)
                renewed = index.config | ({"prompts": wanted.get("prompts")} if other_prompts else {})
                if not index.shards:  # nothing was made with the recorded settings
                    renewed = wanted
                if index.config != renewed and not identity.changes(renewed, wanted):
                    index = cls(folder, renewed, index.shards)
                    index.save()
        changes = identity.changes(index.config, wanted)
        more = changes and all(key.startswith("prompts.") for key, _, _ in changes)
        collect = command("collect")
        advice = f"{collect} with these settings and mode=extend takes more of the same prompts; else " * bool(more)
        advice += f"repeat those settings, or choose another data_dir ({collect} mode=overwrite would delete its pairs)"
        identity.check(folder, index.config, wanted, advice)
        return index

    def add(self, entry: ShardEntry) -> None:
        """Record a finished shard, on disk and here, together with what other processes recorded meanwhile."""
        with writing(self.folder), locked(self.folder):
            current = ShardIndex.load(self.folder)
            if identity.changes(current.config, self.config):
                raise UserError(f"another process collects other pairs into {self.folder}: choose another folder")
            others = [shard for shard in current.shards if shard.name != entry.name]
            self.shards = sorted([*others, entry], key=lambda shard: shard.name)
            self.save()

    def forget_failures(self) -> None:
        """Remove the shards with failures, so that their units are redone."""
        with writing(self.folder), locked(self.folder):
            self.shards = [shard for shard in ShardIndex.load(self.folder).shards if not shard.failures]
            self.save()

    def save(self) -> None:
        shards = _ENTRIES.dump_python(self.shards, by_alias=True)
        content = {"version": _VERSION, "config": self.config, "shards": shards}
        write_atomically(self.folder / INDEX_NAME, json.dumps(content, sort_keys=True))


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns the system's error about a folder that cannot be written into one line."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from error
