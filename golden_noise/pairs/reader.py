"""Streaming shards as batches: each pair goes to one rank and one worker, in a reproducible order."""

import functools
import hashlib
import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import webdataset as wds
from torch.utils.data import IterableDataset, get_worker_info
from webdataset.tariterators import group_by_keys, tar_file_expander

from golden_noise.errors import UserError
from golden_noise.pairs.index import ShardEntry
from golden_noise.pairs.pair import NoisePair, malformed, prompt_hash

RawSample = dict[str, Any]
Batch = dict[str, Any]
Split = Literal["train", "val"]


def split_of(prompt: str, val_fraction: float) -> Split:
    """Side of a prompt, given by its hash alone: no prompt is on both sides, whatever else the set holds."""
    return "val" if int(prompt, 16) / 2**32 < val_fraction else "train"


def read_shard(folder: Path, entry: ShardEntry, rejected: bool = False) -> Iterator[RawSample]:
    """The accepted samples of a shard, not decoded, each with its prompt's hash as `__prompt__`.

    The file's checksum is compared first, once per process as long as the file stays as it is.

    Args:
        rejected: whether to return the rejected samples too; they have no `__prompt__`.

    Raises:
        UserError: naming the file, if it is not the recorded one, cannot be read to its end, or holds other samples
            than recorded.
    """
    path = folder / entry.name
    counts = {True: 0, False: 0}
    try:
        status = path.stat()
        if _sha256(path.absolute(), status.st_size, status.st_mtime_ns) != entry.sha256:
            raise ValueError("its checksum is not the one in index.json")
        with path.open("rb") as stream:
            for sample in group_by_keys(tar_file_expander([{"url": str(path), "stream": stream}])):
                accepted = "noise.npy" in sample
                if accepted:
                    yield sample | {"__prompt__": entry.prompts[counts[True]]}
                elif rejected:
                    yield sample
                counts[accepted] += 1
        if counts != {True: entry.samples, False: entry.rejected}:
            raise ValueError(f"{sum(counts.values())} of {entry.samples + entry.rejected} samples")
    except Exception as error:  # whatever a damaged or hostile tar makes the parser raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"shard {path} is damaged ({reason}): delete it and run collect.py again") from error


@functools.cache
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    """Checksum of a file; size and time of change are there so that a changed file is read again."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class NoisePairDataset(IterableDataset[Batch]):
    """The batches that one rank sees in an epoch of one split.

    The stream of an epoch (shard order, shuffle buffer, batches of consecutive samples) is the same on all
    ranks and workers. Its batches are dealt out round-robin, first to ranks, then to workers, and only their
    owner decodes them; a DataLoader that takes workers in turn therefore returns the same sequence for any
    number of them. In training, the tail that does not fill one batch per rank is dropped, so that all ranks
    take equally many steps; in validation nothing is.

    Args:
        folder: holds the shards.
        shards: entries of the index.
        split: which prompts.
        val_fraction: share of prompts that are for validation, in [0, 1].
        batch_size: pairs per batch and rank.
        latent_shape: (C, H, W) that every noise must have.
        embeds_shape: (L, D) that every prompt embedding must have.
        pooled_shape: (P,) that every pooled embedding must have; None leaves them out of the batches.
        shuffle_buffer: raw samples held in memory for shuffling; 0 keeps the order of the index.
        seed: of all shuffling.
        rank: of this process, below `world_size`.
        world_size: number of ranks.
    """

    def __init__(
        self,
        folder: Path,
        shards: Sequence[ShardEntry],
        split: Split,
        val_fraction: float,
        batch_size: int,
        latent_shape: Sequence[int],
        embeds_shape: Sequence[int],
        pooled_shape: Sequence[int] | None = None,
        shuffle_buffer: int = 0,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ):
        self.folder, self.shards = folder, list(shards)
        self.split, self.val_fraction, self.batch_size = split, val_fraction, batch_size
        self.shapes = {"noise": tuple(latent_shape), "golden": tuple(latent_shape), "embeds": tuple(embeds_shape)}
        if pooled_shape is not None:
            self.shapes["pooled"] = tuple(pooled_shape)
        self.shuffle_buffer, self.seed = shuffle_buffer, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = self.first_batch = 0
        #: Pairs of the split, over all ranks; known without opening a shard.
        self.num_pairs = sum(self._is_mine(prompt) for shard in self.shards for prompt in shard.prompts)

    @property
    def num_batches(self) -> int:
        """Batches of the split, over all ranks."""
        if self.split == "val":
            return -(-self.num_pairs // self.batch_size)
        return self.num_pairs // self.batch_size // self.world_size * self.world_size

    def __len__(self) -> int:
        """Batches of this rank in a whole epoch."""
        return len(range(self.rank, self.num_batches, self.world_size))

    def start_at(self, epoch: int, batch: int) -> None:
        """Make the next iteration begin at this rank's batch `batch` of epoch `epoch`."""
        self.epoch, self.first_batch = epoch, batch

    def __iter__(self) -> Iterator[Batch]:
        rng = random.Random(f"{self.seed}/{self.epoch}")
        shards = self.shards.copy()
        if self.shuffle_buffer:
            rng.shuffle(shards)
        pipeline = wds.DataPipeline(
            lambda: iter(shards),
            self._raw_samples,
            wds.shuffle(self.shuffle_buffer, initial=self.shuffle_buffer, rng=rng),
            wds.batched(self.batch_size, collation_fn=None),
            self._deal,
            wds.map(self._decode),
        )
        return iter(pipeline)

    def _is_mine(self, prompt: str) -> bool:
        return split_of(prompt, self.val_fraction) == self.split

    def _raw_samples(self, shards: Iterable[ShardEntry]) -> Iterator[RawSample]:
        for shard in shards:
            for sample in read_shard(self.folder, shard):
                if self._is_mine(sample["__prompt__"]):
                    yield sample

    def _deal(self, batches: Iterable[list[RawSample]]) -> Iterator[list[RawSample]]:
        worker = get_worker_info()
        worker_id, num_workers = (worker.id, worker.num_workers) if worker else (0, 1)
        first = self.rank + self.world_size * (self.first_batch + worker_id)
        return itertools.islice(batches, first, self.num_batches, self.world_size * num_workers)

    def _decode(self, samples: list[RawSample]) -> Batch:
        pairs = [self._decode_pair(sample) for sample in samples]
        batch: Batch = {"key": [pair.key for pair in pairs]}
        for name in self.shapes:
            batch[name] = torch.stack([getattr(pair, name) for pair in pairs])
        return batch

    def _decode_pair(self, sample: RawSample) -> NoisePair:
        pair = NoisePair.from_sample(sample)
        if prompt_hash(pair.prompt.text) != sample["__prompt__"]:
            raise malformed(sample, "its prompt is not the one in index.json")
        for name, shape in self.shapes.items():
            tensor = getattr(pair, name)
            if tensor is None or tensor.shape != shape:
                found = "missing" if tensor is None else format_shape(tensor.shape)
                raise malformed(sample, f"{name} is {found}, not {format_shape(shape)}")
        return pair


def format_shape(shape: Sequence[int]) -> str:
    """A shape as people write it: 4x8x8."""
    return "x".join(map(str, shape))
