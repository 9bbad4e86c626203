"""Streaming shards as batches: each pair goes to one rank, in a repeatable order, from any position on."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader

from golden_noise.errors import UserError
from golden_noise.pairs.dataset import Batch, Batches
from golden_noise.pairs.order import Order, Split, deal, epoch_order, steps_per_rank, stored_order
from golden_noise.pairs.workers import outlive_sigterm


class NoisePairLoader:
    """The batches that one rank sees of one split, epoch after epoch.

    Each iteration is the next epoch; the first one after `load_state_dict` resumes where the state was taken. The
    position counts the batches that were used, not those that workers have read ahead.

    It holds a DataLoader instead of being one, because Lightning would replace the sampler of one.

    Args:
        dataset: reads the batches.
        split: which prompts.
        val_fraction: share of prompts that are for validation, in [0, 1].
        batch_size: pairs per batch and rank.
        shuffle_shards: as `epoch_order` takes it.
        seed: of the order.
        rank: of this process, below `world_size`.
        world_size: number of ranks.
        epoch: the first iteration's.
        options: `num_workers` and others that a DataLoader takes. They do not change the batches.
    """

    def __init__(
        self,
        dataset: Batches,
        split: Split,
        val_fraction: float,
        batch_size: int,
        shuffle_shards: int = 0,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        epoch: int = 0,
        **options: Any,
    ):
        self.dataset, self.split, self.batch_size = dataset, split, batch_size
        self.shuffle_shards, self.seed, self.rank, self.world_size = shuffle_shards, seed, rank, world_size
        self.epoch, self.pairs = epoch, 0
        self._resumed = False
        self._stored = stored_order(dataset.hashes, split, val_fraction)
        self._items: list[tuple[int, Order]] = []  # of the dataset, in this epoch
        self._options = options
        self._loader: DataLoader | None = None

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
        steps = [(step[self.rank].copy(), sum(map(len, step))) for step in self._steps(self.epoch, self.pairs)]
        self._items[:] = [(self.epoch, batch) for batch, _ in steps]
        if self._loader is None:
            self._loader = DataLoader(
                self.dataset,
                batch_size=None,
                sampler=self._items,
                generator=torch.Generator(),  # else every epoch draws a number from the global one
                worker_init_fn=outlive_sigterm,
                **self._options,
            )
        for (_, pairs), batch in zip(steps, self._loader, strict=True):
            if isinstance(batch, UserError):
                raise UserError(str(batch))
            self.pairs += pairs
            yield batch

    def close(self) -> None:
        """End persistent workers, which stay for some seconds if they are left to the garbage collector."""
        self._loader = None

    def plan(self, epoch: int) -> Sequence[Order]:
        """The pairs of every batch of this rank in an epoch."""
        return [step[self.rank].copy() for step in self._steps(epoch)]

    def _steps(self, epoch: int, start: int = 0) -> Iterator[Sequence[Order]]:
        """The batches of all ranks, from the `start`th pair of an epoch on."""
        order = epoch_order(self._stored, self.shuffle_shards, self.seed, epoch)
        return deal(order[start:], self.split, self.batch_size, self.world_size)

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
        """Make the next iteration begin at a stored position, of any number of ranks."""
        self.epoch, self.pairs = state["epoch"], state["pairs"]
        if self.left == 0:
            self.epoch, self.pairs = self.epoch + 1, 0
        self._resumed = True
