"""Which pairs a rank reads, and when: pure functions of what the index says, the seed and the epoch.

An order is an int32 array (pairs, 2) of shard numbers and rows in the shard.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Order: TypeAlias = NDArray[np.int32]
Split = Literal["train", "val"]


def split_of(prompt: str, val_fraction: float) -> Split:
    """Side of a prompt, given by its hash alone: no prompt is on both sides, whatever else the set holds."""
    return "val" if int(prompt, 16) / 2**32 < val_fraction else "train"


def stored_order(prompts: Sequence[Sequence[str]], split: Split, val_fraction: float) -> list[Order]:
    """The pairs of one split as they are stored, an order for each shard, from the prompts' hashes of each."""
    orders = []
    for shard, hashes in enumerate(prompts):
        rows = [(shard, row) for row, prompt in enumerate(hashes) if split_of(prompt, val_fraction) == split]
        orders.append(np.array(rows, np.int32).reshape(-1, 2))
    return orders


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
    blocks = [shards[start : start + shuffle_shards] for start in range(0, len(shards), shuffle_shards)]
    return np.concatenate([rng.permutation(np.concatenate([stored[shard] for shard in block])) for block in blocks])


def steps_per_rank(pairs: int, split: Split, batch_size: int, world_size: int) -> int:
    """Batches of every rank; 0 if there are too few pairs for one on each."""
    if split == "train":
        return pairs // (batch_size * world_size)
    return min(-(-pairs // (batch_size * world_size)), pairs // world_size)


def deal(order: Order, split: Split, batch_size: int, world_size: int) -> Sequence[Sequence[Order]]:
    """The batches of every step, one for each rank; the pairs of a step do not depend on the number of ranks.

    In training every batch is full, and the tail that does not fill one on each rank is dropped. In validation nothing
    is: batches are as equal as can be, which leaves each rank the same number of them, too.
    """
    steps = steps_per_rank(len(order), split, batch_size, world_size)
    if steps == 0:
        return []
    if split == "train":
        order = order[: steps * world_size * batch_size]
    batches = np.array_split(order, steps * world_size)
    return [batches[start : start + world_size] for start in range(0, len(batches), world_size)]
