"""Shards as a map-style dataset whose items are whole batches."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, get_worker_info

from golden_noise.errors import UserError
from golden_noise.pairs.entry import ShardEntry
from golden_noise.pairs.order import Hashes, Order
from golden_noise.pairs.reader import OpenShard
from golden_noise.pairs.source import ShardSource

Batch = dict[str, Any]


class Batches(Dataset[Batch | UserError]):
    """A dataset of whole batches: `dataset[epoch, order]`, where `order` (B, 2) says which rows of which shards.

    A batch has `key` and `prompt`, B names and texts.
    """

    @property
    def hashes(self) -> Sequence[Hashes]:
        """`prompt_hash` of every row of every shard, as numbers (rows,): known without opening one."""
        raise NotImplementedError

    def read(self, epoch: int, order: Order) -> Batch:
        """A batch, as it is in an epoch.

        Raises:
            UserError: it cannot be read.
        """
        raise NotImplementedError

    def __getitem__(self, item: tuple[int, Order]) -> Batch | UserError:
        """A batch, or its error: one raised in a worker would bring the worker's traceback."""
        try:
            return self.read(*item)
        except UserError as error:
            return error

    def close(self) -> None:
        """Close what is open."""


class NoisePairDataset(Batches):
    """The pairs of shards, read a batch at a time.

    A batch has `key` and `prompt`, B names and texts, and an array (B, ...) in float16 for every name in `shapes`.
    A shard is checked whenever it is opened, which is once an epoch as long as few enough are read at a time.

    Args:
        source: where the shards are.
        shards: entries of the index.
        shapes: which arrays to read, and what shape each must have.
        max_open: how many shards to keep open.
        metrics: by whose stored scores the batch gets `gains` (B, metrics) float32, golden minus standard.
    """

    def __init__(
        self,
        source: ShardSource,
        shards: Sequence[ShardEntry],
        shapes: Mapping[str, tuple[int, ...]],
        max_open: int = 1,
        metrics: Sequence[str] = (),
    ):
        self.metrics = metrics
        self.source, self.shards, self.shapes, self.max_open = source, list(shards), dict(shapes), max_open
        self._members: dict[int, NDArray[np.int64]] = {}
        self._opened: dict[int, OpenShard] = {}
        self._epoch = 0

    @property
    def hashes(self) -> Sequence[Hashes]:
        return [shard.hashes for shard in self.shards]

    def read(self, epoch: int, order: Order) -> Batch:
        """A batch.

        Raises:
            UserError: a shard is not the recorded one, or a pair is not of the given shapes.
        """
        if epoch != self._epoch:
            self.close()
            self._epoch = epoch
        batch: Batch = {"key": [], "prompt": []}
        gains: list[list[float]] = []
        tensors = {name: torch.empty((len(order), *shape), dtype=torch.float16) for name, shape in self.shapes.items()}
        if get_worker_info() is not None:  # a worker would copy them to shared memory later
            tensors = {name: tensor.share_memory_() for name, tensor in tensors.items()}
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        for i, (shard, row) in enumerate(order.tolist()):
            key, meta = self._open(shard).read(row, {name: array[i] for name, array in arrays.items()})
            batch["key"].append(key)
            batch["prompt"].append(meta["prompt"])
            if self.metrics:
                gains.append([self._gain(name, key, meta) for name in self.metrics])
        return batch | tensors | ({"gains": torch.tensor(gains)} if self.metrics else {})

    def _gain(self, metric: str, key: str, meta: Mapping[str, Any]) -> float:
        if metric not in meta["scores"]:
            known = ", ".join(meta["scores"]) or "none"
            raise UserError(
                f"objective.filter.{metric}: pair {key} in {self.source} has no such score, but {known}: collect with "
                f"that metric and collection.select_by (collection.margin=-1e9 keeps every pair)"
            )
        standard, golden = meta["scores"][metric]
        return float(golden - standard)

    def close(self) -> None:
        for shard in self._opened.values():
            shard.close()
        self._opened.clear()

    def _open(self, shard: int) -> OpenShard:
        if shard not in self._opened:
            if len(self._opened) >= self.max_open:  # of an earlier block of shuffled shards
                self._opened.pop(next(iter(self._opened))).close()
            entry = self.shards[shard]
            file, url = self.source.open(entry), self.source.url(entry.name)
            self._opened[shard] = OpenShard(file, entry, url, self._members.get(shard))
            self._members[shard] = self._opened[shard].members
        return self._opened[shard]
