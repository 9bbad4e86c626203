"""Memory for batches that is used again."""

import weakref
from collections import defaultdict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Buffers:
    """Gives out tensors in float16; the memory of one that is gone, with all its views, becomes another's.

    Clearing fresh pages for a batch takes longer than reading into them. The C library, too, uses memory again, but in
    a heap for each thread, and these together hold more than was ever in use at a time.

    Args:
        rows: of most tensors; smaller ones take as much memory, so that they can share it.
    """

    def __init__(self, rows: int):
        self.rows = rows
        self._free: dict[tuple[int, ...], list[NDArray[np.float16]]] = defaultdict(list)

    def take(self, rows: int, shape: tuple[int, ...]) -> Tensor:
        """A tensor (rows, *shape) of arbitrary content, for any thread."""
        whole = (max(rows, self.rows), *shape)
        free = self._free[whole]
        try:
            memory = free.pop()
        except IndexError:
            memory = np.empty(whole, np.float16)  # in huge pages, unlike torch's own: three times as fast
        array = memory[:rows]  # torch holds on to it for as long as any tensor shares its memory
        weakref.finalize(array, free.append, memory)
        return torch.from_numpy(array)
