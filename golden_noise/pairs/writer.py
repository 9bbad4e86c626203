"""Writing shards: a shard is the unit of work, finished once the index lists it, to be redone otherwise."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from webdataset import TarWriter

from golden_noise.errors import UserError
from golden_noise.files import atomic_file
from golden_noise.identity import file_digest
from golden_noise.pairs.entry import ShardEntry, pack
from golden_noise.pairs.index import ShardIndex, writing
from golden_noise.pairs.pair import Failure, Result, prompt_hash
from golden_noise.pairs.upload import Upload
from golden_noise.sharing.claims import Claims


def shard_name(unit: int) -> str:
    """File name of the shard that holds work unit `unit`."""
    return f"pairs-{unit:06d}.tar"


class ShardWriter:
    """Collects units of work into a folder that was made by one configuration.

    Killed at any instruction, it leaves every unit either finished or to be redone, and the redo overwrites
    what was left of it. Several processes may share the folder, on several machines: `taking` deals out the units.

    Args:
        folder: created if missing.
        config: resolved configuration, JSON values only; must equal that of the pairs already in the folder.
        upload: where every shard is uploaded to; only then is its unit finished.

    Raises:
        UserError: if the folder cannot be written or its pairs were made by another configuration.
    """

    def __init__(self, folder: str | Path, config: Mapping[str, Any], upload: Upload | None = None):
        self.folder, self.config, self.upload = Path(folder), config, upload
        self.index = ShardIndex.open(self.folder, config)
        self.claims = Claims(self.folder, "pairs")

    def is_finished(self, unit: int, prompts_sha256: str = "") -> bool:
        """Whether the unit's shard is there, and uploaded if it should be."""
        shard = self.collected(unit, prompts_sha256)
        return shard is not None and (self.upload is None or self.upload.has(shard))

    def collected(self, unit: int, prompts_sha256: str = "") -> ShardEntry | None:
        """The unit's shard, if it was recorded, of the prompts with this digest, and is still there with its size."""
        shard = self.index.find(shard_name(unit))
        return shard if shard and _is_of(shard, prompts_sha256) and shard.is_intact(self.folder) else None

    @contextlib.contextmanager
    def taking(self, digests: Sequence[str], waiting: Callable[[], object] = lambda: None) -> Iterator[Iterator[int]]:
        """Gives unfinished units, each claimed for this process, until all are finished or were given here.

        Units of other processes are waited for: one whose process dies is given, too.

        Args:
            digests: of the prompts of every unit (`prompts_digest`); empty where it is not known.
            waiting: called when there is nothing left to do but to wait for other processes.

        Raises:
            UserError: the folder cannot be written or uploaded, or another process deletes its pairs.
        """
        with contextlib.ExitStack() as stack:
            with writing(self.folder):
                stack.enter_context(self.claims)
            yield self.claims.share(
                self._unfinished(digests),
                lambda unit: self.is_finished(unit, digests[unit]),
                self.index.refresh,
                waiting,
            )
            self.claims.sweep()
            self.index.tidy()
            if self.upload:
                self.upload.publish()

    def _unfinished(self, digests: Sequence[str]) -> list[int]:
        """What `is_finished` denies, by one listing of the folder."""
        intact = self.index.intact()
        if self.upload:
            intact &= self.upload.names(self.index.shards)
        finished = {
            shard.unit
            for shard in self.index.shards
            if shard.name in intact and shard.unit < len(digests) and _is_of(shard, digests[shard.unit])
        }
        return [unit for unit in range(len(digests)) if unit not in finished]

    def write(self, unit: int, results: Iterable[Result], prompts_sha256: str = "") -> ShardEntry:
        """Write one shard and record it, with the `prompts_digest` of its prompts; the same pairs give the same bytes.

        Raises:
            UserError: if the file cannot be written or uploaded, or a pair holds values that float16 cannot.
        """
        entry = write_shard(self.folder, unit, results, prompts_sha256)
        self.index.add(entry)
        self.finish(entry)
        return entry

    def finish(self, shard: ShardEntry) -> None:
        """Finish the unit of a shard that is recorded: all that may be left to do is to upload it."""
        if self.upload:
            self.upload.add(shard)
        self.claims.finish(shard.unit)


def _is_of(shard: ShardEntry, prompts_sha256: str) -> bool:
    """Whether a shard is of the prompts with a digest, as far as both are known."""
    return not shard.prompts_sha256 or prompts_sha256 in ("", shard.prompts_sha256)


def write_shard(folder: Path, unit: int, results: Iterable[Result], prompts_sha256: str = "") -> ShardEntry:
    """Write one shard without recording it in the index; see `ShardWriter.write`."""
    path = folder / shard_name(unit)
    prompts: list[str] = []
    failures: list[Failure] = []
    rejected = 0
    try:
        with atomic_file(path) as file, TarWriter(file, mtime=0, user="", group="", encoder=False) as tar:
            for result in _computed(results):
                if isinstance(result, Failure):
                    failures.append(result)
                    continue
                tar.write(result.to_sample())
                if result.accepted:
                    prompts.append(prompt_hash(result.prompt.text))
                else:
                    rejected += 1
        size, sha256 = path.stat().st_size, file_digest(path)
    except _NotWriting as error:
        raise error.args[0] from None
    except OSError as error:
        raise UserError(f"making {path} failed: {error.strerror or error}") from error
    return ShardEntry(path.name, len(prompts), rejected, size, sha256, pack(prompts), prompts_sha256, failures)


class _NotWriting(Exception):
    """Holds an OSError that writing did not cause."""


def _computed(results: Iterable[Result]) -> Iterator[Result]:
    """The results, whose own errors of the system are told from those of the shard."""
    try:
        yield from results
    except OSError as error:
        raise _NotWriting(error) from error
