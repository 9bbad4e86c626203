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
    a heap for each thread, and what these hold is more than was ever in use at a time.
    """

    def __init__(self) -> None:
        self._free: dict[tuple[int, ...], list[NDArray[np.float16]]] = defaultdict(list)

    def take(self, shape: tuple[int, ...]) -> Tensor:
        """A tensor of arbitrary content; may be called from any thread."""
        free = self._free[shape]
        try:
            memory = free.pop()
        except IndexError:
            memory = np.empty(shape, np.float16)  # in huge pages, unlike torch's own: three times as fast
        array = memory.view()  # lives as long as any tensor that shares its memory, for torch holds on to it
        weakref.finalize(array, free.append, memory)
        return torch.from_numpy(array)
