"""The loss of a metric whose model passes gradients to the images it judges."""

from collections.abc import Sequence

import torch
from torch import Tensor


class GivesGradients:
    """Adds `loss` (see `DifferentiableMetric`) to a metric that says how it prepares and judges images.

    Attributes:
        device: where the metric's model is.
    """

    device: torch.device

    def loss(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """-score (B,) float32 with gradients; see `DifferentiableMetric`.

        A surrounding autocast is switched off: the metric's own dtype counts, in training as in scoring.
        """
        seen = images.to(self.device, torch.float32).clamp(0, 1)
        with torch.autocast(self.device.type, enabled=False):
            return -self._judge(prompts, self._prepare(seen)).to(images.device)

    def _prepare(self, images: Tensor) -> Tensor:
        """Pixels for the model of images (B, 3, H, W) in [0, 1], on the metric's device, with gradients."""
        raise NotImplementedError

    def _judge(self, prompts: Sequence[str], pixels: Tensor) -> Tensor:
        """Scores (B,) float32 of such pixels, on the metric's device, with gradients."""
        raise NotImplementedError
