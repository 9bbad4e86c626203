"""Writing shards: a shard is the unit of work, finished once the index lists it, to be redone otherwise."""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import webdataset as wds

from golden_noise.errors import UserError
from golden_noise.pairs.index import ShardEntry, ShardIndex, atomic_file, collecting_alone
from golden_noise.pairs.pair import NoisePair, prompt_hash


def shard_name(unit: int) -> str:
    """File name of the shard that holds work unit `unit`."""
    return f"pairs-{unit:06d}.tar"


class ShardWriter:
    """Collects units of work into a folder that was made by one configuration.

    Killed at any instruction, it leaves every unit either finished or to be redone, and the redo overwrites
    what was left of it. Several processes may share the folder as long as they take different units.

    Args:
        folder: created if missing.
        config: resolved configuration, JSON values only; must equal that of the pairs already in the folder.

    Raises:
        UserError: if the folder cannot be written or its pairs were made by another configuration.
    """

    def __init__(self, folder: str | Path, config: Mapping[str, Any]):
        self.folder, self.config = Path(folder), config
        self.index = ShardIndex.open(self.folder, config)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other collector is at work in the folder, keep others waiting, and see what is finished now."""
        with collecting_alone(self.folder):
            self.index = ShardIndex.open(self.folder, self.config)
            yield

    def is_finished(self, unit: int) -> bool:
        """Whether the unit's shard was recorded and is still there with its size."""
        name = shard_name(unit)
        return any(shard.name == name and shard.is_intact(self.folder) for shard in self.index.shards)

    def write(self, unit: int, pairs: Iterable[NoisePair]) -> ShardEntry:
        """Write one shard and record it; the same pairs give the same bytes.

        Raises:
            UserError: if the file cannot be written or a pair holds values that float16 cannot.
        """
        entry = write_shard(self.folder, unit, pairs)
        self.index.add(entry)
        return entry


def write_shard(folder: Path, unit: int, pairs: Iterable[NoisePair]) -> ShardEntry:
    """Write one shard without recording it in the index; see `ShardWriter.write`."""
    path = folder / shard_name(unit)
    prompts: list[str] = []
    rejected = 0
    try:
        with atomic_file(path) as file:
            hashed = _HashedFile(file)
            with wds.TarWriter(hashed, user="", group="", mtime=0, encoder=False) as tar:
                for pair in pairs:
                    tar.write(pair.to_sample())
                    if pair.accepted:
                        prompts.append(prompt_hash(pair.prompt.text))
                    else:
                        rejected += 1
    except OSError as error:
        raise UserError(f"writing {path} failed: {error}") from error
    return ShardEntry(path.name, len(prompts), rejected, hashed.bytes, hashed.sha256.hexdigest(), prompts)


class _HashedFile:
    """Counts and hashes what passes through, so that a shard need not be read again for its checksum."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.sha256 = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.bytes += len(data)
        return self.file.write(data)
