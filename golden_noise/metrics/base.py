"""The interface of a metric."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor


class Metric(Protocol):
    """Scores how well images fit their prompts; higher is better.

    Attributes:
        range: lowest and highest value the score can take, infinite where it is unbounded.
        version: which weights or rules gave the score, for the record.
    """

    range: tuple[float, float]
    version: str

    def score(self, prompts: Sequence[str], images: Tensor) -> Tensor:
        """Scores (B,) float32 on the CPU of images (B, 3, H, W) in [0, 1], each for its own prompt.

        Images count as they do once they are saved: rounded to 8 bits.
        """
        ...


@runtime_checkable
class EmbedsImages(Protocol):
    """What a metric may offer beside its score: how it sees images, for measuring how much they differ."""

    def embed(self, images: Tensor) -> Tensor:
        """Features (B, D) float32 on the CPU of images (B, 3, H, W) in [0, 1]; their directions are compared."""
        ...
