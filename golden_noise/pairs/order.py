"""Which pairs a rank reads, and when: pure functions of what the index says, the seed and the epoch.

An order is an int32 array (pairs, 2) of shard numbers and rows in the shard.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Order: TypeAlias = NDArray[np.int32]
Hashes: TypeAlias = NDArray[np.uint32]  # of prompts: `prompt_hash` as numbers
Split = Literal["train", "val"]


def split_of(prompt: str, val_fraction: float) -> Split:
    """Side of a prompt, given by its hash alone: no prompt is on both sides, whatever else the set holds."""
    return "val" if int(prompt, 16) / 2**32 < val_fraction else "train"


def split_counts(prompts: Sequence[Hashes], val_fraction: float) -> dict[Split, int]:
    """How many pairs each side has."""
    held_out = _held_out(np.concatenate(prompts), val_fraction) if len(prompts) else np.empty(0, bool)
    return {"train": int(np.count_nonzero(~held_out)), "val": int(np.count_nonzero(held_out))}


def stored_order(prompts: Sequence[Hashes], split: Split, val_fraction: float) -> list[Order]:
    """The pairs of one split as they are stored, an order for each shard, from the prompts' hashes of each."""
    if not len(prompts):
        return []
    chosen = np.flatnonzero(_held_out(np.concatenate(prompts), val_fraction) == (split == "val"))
    starts = np.cumsum([0, *map(len, prompts)])
    ends = np.searchsorted(chosen, starts)
    order = np.empty((len(chosen), 2), np.int32)
    order[:, 0] = np.repeat(np.arange(len(prompts)), np.diff(ends))
    order[:, 1] = chosen - starts[order[:, 0]]
    return np.split(order, ends[1:-1])


def _held_out(hashes: Hashes, val_fraction: float) -> NDArray[np.bool_]:
    """Where `split_of` says "val"."""
    return hashes < val_fraction * 2.0**32


def epoch_order(stored: Sequence[Order], shuffle_shards: int, seed: int, epoch: int) -> Order:
    """All pairs, in the order of an epoch: shards in random order, and of every few the pairs in random order.

    Args:
        stored: an order for each shard.
        shuffle_shards: how many shards' pairs are shuffled with each other, and so read at a time; 0 shuffles nothing.
    """
    if not shuffle_shards:
        return np.concatenate(stored)
    rng = np.random.default_rng([seed, epoch])
    shards = rng.permutation(len(stored))
    order, end = np.empty((sum(map(len, stored)), 2), np.int32), 0
    for first in range(0, len(shards), shuffle_shards):
        block = np.concatenate([stored[shard] for shard in shards[first : first + shuffle_shards]])
        order[end : end + len(block)] = rng.permutation(block)
        end += len(block)
    return order


def steps_per_rank(pairs: int, split: Split, batch_size: int, world_size: int) -> int:
    """Batches of every rank; 0 if there are too few pairs for one on each."""
    if split == "train":
        return pairs // (batch_size * world_size)
    return min(-(-pairs // (batch_size * world_size)), pairs // world_size)


def deal(order: Order, split: Split, batch_size: int, world_size: int) -> Iterator[Sequence[Order]]:
    """The batches of every step, one for each rank; the pairs of a step do not depend on the number of ranks.

    In training every batch is full, and the tail that does not fill one on each rank is dropped. In validation nothing
    is: batches are as equal as can be, which leaves each rank the same number of them, too.

    Several ranks share a step by shards: each opens few of them, instead of all for some pairs of each.
    """
    steps = steps_per_rank(len(order), split, batch_size, world_size)
    pairs = steps * world_size * batch_size if split == "train" else len(order)
    small, larger = divmod(pairs, steps * world_size) if steps else (0, 0)
    ends = small * np.arange(steps * world_size + 1) + np.minimum(np.arange(steps * world_size + 1), larger)
    for first in range(0, steps * world_size, world_size):
        places = ends[first : first + world_size + 1]
        step = order[places[0] : places[-1]]
        if world_size > 1:
            step = step[np.argsort(step[:, 0], kind="stable")]
        yield np.split(step, places[1:-1] - places[0])
