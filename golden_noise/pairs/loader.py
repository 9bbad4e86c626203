"""Streaming shards as batches: each pair goes to one rank, in a repeatable order, from any position on."""

import contextlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from golden_noise.pairs.buffers import Buffers
from golden_noise.pairs.index import ShardEntry
from golden_noise.pairs.order import Order, Split, dealt, epoch_order, steps_per_rank, stored_order
from golden_noise.pairs.reader import OpenShard
from golden_noise.pairs.source import ShardSource

Batch = dict[str, Any]


class NoisePairLoader:
    """The batches that one rank sees of one split, epoch after epoch.

    A batch has `key` and `prompt`, B names and texts, and an array (B, ...) in float16 for every name in `shapes`.

    Each iteration is the next epoch; the first one after `load_state_dict` goes on where the state was taken. A rank
    reads its own pairs only, in threads: most of their work (reading, hashing) happens outside of Python's lock, and
    unlike processes they write into the batch itself, and open and check each shard once for all.

    Args:
        source: where the shards are.
        shards: entries of the index.
        split: which prompts.
        val_fraction: share of prompts that are for validation, in [0, 1].
        batch_size: pairs per batch and rank.
        shapes: which arrays to read, and what shape each must have.
        shuffle_shards: as `epoch_order` takes it.
        num_workers: threads that read ahead; 0 reads when a batch is asked for. Does not change the batches.
        seed: of the order.
        rank: of this process, below `world_size`.
        world_size: number of ranks.
        epoch: the first iteration's.
        buffers: memory for the batches, perhaps shared with other loaders.
    """

    def __init__(
        self,
        source: ShardSource,
        shards: Sequence[ShardEntry],
        split: Split,
        val_fraction: float,
        batch_size: int,
        shapes: Mapping[str, tuple[int, ...]],
        shuffle_shards: int = 0,
        num_workers: int = 0,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        epoch: int = 0,
        buffers: Buffers | None = None,
    ):
        self.source, self.shards, self.split = source, list(shards), split
        self.batch_size, self.shapes = batch_size, dict(shapes)
        self.shuffle_shards, self.num_workers, self.seed = shuffle_shards, num_workers, seed
        self.rank, self.world_size = rank, world_size
        self.epoch, self.pairs = epoch, 0
        self.buffers = buffers or Buffers(batch_size)
        self._resumed = False
        self._stored = stored_order([shard.prompts for shard in self.shards], split, val_fraction)
        self._places: dict[int, NDArray[np.int64]] = {}

    @property
    def num_pairs(self) -> int:
        """Pairs of the split, over all ranks; known without opening a shard."""
        return sum(map(len, self._stored))

    def __len__(self) -> int:
        """Batches of this rank in a whole epoch: as many as every other rank's."""
        return steps_per_rank(self.num_pairs, self.split, self.batch_size, self.world_size)

    def __iter__(self) -> Iterator[Batch]:
        # An iterator that was never used does not count as an epoch: Lightning sometimes makes one too many.
        if self.pairs and not self._resumed:
            self.epoch, self.pairs = self.epoch + 1, 0
        return self._batches()

    def _batches(self) -> Iterator[Batch]:
        self._resumed = False
        steps = self._steps(self.epoch, self.pairs)
        for step, batch in zip(steps, _read_ahead(self, [step[self.rank] for step in steps]), strict=True):
            self.pairs += sum(map(len, step))
            yield batch

    def plan(self, epoch: int) -> Sequence[Order]:
        """The pairs of every batch of an epoch."""
        return [step[self.rank] for step in self._steps(epoch)]

    def _steps(self, epoch: int, start: int = 0) -> Sequence[Sequence[Order]]:
        """The batches of all ranks, from the `start`th pair of an epoch on."""
        order = epoch_order(self._stored, self.shuffle_shards, self.seed, epoch)
        return dealt(order[start:], self.split, self.batch_size, self.world_size)

    def open(self, shard: int) -> OpenShard:
        """A shard by its number.

        Raises:
            UserError: it is not the recorded one.
        """
        entry = self.shards[shard]
        opened = OpenShard(self.source.open(entry), entry, self.source.place(entry.name), self._places.get(shard))
        self._places[shard] = opened.places
        return opened

    @property
    def left(self) -> int:
        """Batches of this rank from the current position to the end of the epoch."""
        return steps_per_rank(self.num_pairs - self.pairs, self.split, self.batch_size, self.world_size)

    def state_dict(self) -> dict[str, int]:
        """The next pair to return, as the epoch and the number of pairs that all ranks together have had in it.

        It holds for any number of ranks. The end of an epoch is the next one's start.
        """
        if self.left == 0:
            return {"epoch": self.epoch + 1, "pairs": 0}
        return {"epoch": self.epoch, "pairs": self.pairs}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Make the next iteration begin at a stored position, perhaps of another number of ranks."""
        self.epoch, self.pairs = state["epoch"], state["pairs"]
        if self.left == 0:
            self.epoch, self.pairs = self.epoch + 1, 0
        self._resumed = True


def _read_ahead(loader: NoisePairLoader, plan: Sequence[Order]) -> Iterator[Batch]:
    """The batches of a plan in its order, read by `num_workers` threads that are at most two batches each ahead."""
    reader = _Reader(loader, plan)
    pending: deque[Future[Batch]] = deque()
    with contextlib.closing(reader), ThreadPoolExecutor(max(1, loader.num_workers), "noise-pairs") as pool:
        try:
            for pairs in plan:
                pending.append(pool.submit(reader.read, pairs))
                if len(pending) > 2 * loader.num_workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


class _Reader:
    """Reads the batches of a plan, from any thread; a shard is open from its first pair to its last."""

    def __init__(self, loader: NoisePairLoader, plan: Sequence[Order]):
        self.loader = loader
        shards = np.concatenate([pairs[:, 0] for pairs in plan]) if len(plan) else np.empty(0, np.int32)
        self.left = np.bincount(shards, minlength=len(loader.shards))  # pairs still to be read
        self.opened: dict[int, OpenShard] = {}
        self.locks = [Lock() for _ in loader.shards]
        self.pinned = torch.cuda.is_available()

    def read(self, pairs: Order) -> Batch:
        batch: Batch = {"key": [], "prompt": []}
        tensors = {name: self._empty(len(pairs), shape) for name, shape in self.loader.shapes.items()}
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        for row, (shard, place) in enumerate(pairs.tolist()):
            key, prompt = self._open(shard).read(place, {name: array[row] for name, array in arrays.items()})
            batch["key"].append(key)
            batch["prompt"].append(prompt)
        for shard, count in zip(*np.unique(pairs[:, 0], return_counts=True), strict=True):
            self._close(int(shard), int(count))
        return batch | tensors

    def close(self) -> None:
        """Close what is still open when no other thread is reading."""
        for shard in self.opened.values():
            shard.close()

    def _open(self, shard: int) -> OpenShard:
        with self.locks[shard]:
            if shard not in self.opened:
                self.opened[shard] = self.loader.open(shard)
            return self.opened[shard]

    def _close(self, shard: int, count: int) -> None:
        with self.locks[shard]:
            self.left[shard] -= count
            if self.left[shard] == 0:
                self.opened.pop(shard).close()

    def _empty(self, rows: int, shape: tuple[int, ...]) -> Tensor:
        """Memory for a batch; page-locked where there is a GPU to copy it to, which torch itself uses again."""
        if self.pinned:
            return torch.empty((rows, *shape), dtype=torch.float16, pin_memory=True)
        return self.loader.buffers.take(rows, shape)
