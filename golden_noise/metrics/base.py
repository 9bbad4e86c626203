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
class DifferentiableMetric(Metric, Protocol):
    """A metric that images can be trained on, through a pipeline or a network.

    PickScore, HPSv2, CLIPScore, AES, ImageReward and Redness are such. GenEval is not: it counts what a detector finds,
    which does not change in small steps. Nor is MPS, which stays a judge that nothing here was trained on.
    """

    def loss(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """-score (B,) float32 on the images' device, with gradients to images (B, 3, H, W) in [0, 1].

        Lower is better. It differs from -score by what rounding to 8 bits does, before and after images are resized.
        Pixels beyond [0, 1] count as clipped and get no gradient; those that are not finite make the loss so. The
        metric's own parameters get none. In a metric of dtype float16 small gradients vanish: bfloat16 keeps them.
        """
        ...


@runtime_checkable
class EmbedsImages(Protocol):
    """What a metric may offer beside its score: how it sees images, for measuring how much they differ."""

    def embed(self, images: Tensor) -> Tensor:
        """Features (B, D) float32 on the CPU of images (B, 3, H, W) in [0, 1]; their directions are compared."""
        ...
