"""The LightningModule that trains NPNet on noise pairs.

A batch is a dict of `noise` and `golden` (B, C, H, W), `embeds` (B, L, D), for denoisers that take it `pooled` (B, P),
and `key` (B names).
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from golden_noise.npnet import AnyNPNet
from golden_noise.pipelines.prompt_embedding import PromptEmbedding


class ExplainedVariance(Metric):
    """The explained variance: the share of the target's move that is predicted, over all pairs and ranks.

    `1 - sum |phi(x) - x'|^2 / sum |x - x'|^2`: 1 is perfect, 0 is no better than the plain noise, negative is worse.
    The sums stay apart until the end: a mean of the batches' ratios would be another number.
    """

    full_state_update = False
    higher_is_better = True
    error: Tensor
    move: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("error", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("move", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, golden: Tensor, noise: Tensor) -> None:
        """Adds a batch of three tensors of one shape."""
        self.error += (predicted - golden).float().square().sum()
        self.move += (noise - golden).float().square().sum()

    def compute(self) -> Tensor:
        """The share, a scalar in (-inf, 1]."""
        return 1 - self.error / self.move


class NPNetModule(LightningModule):
    """Regresses the golden noise with a mean squared error (arXiv 2411.09502).

    Logs `train/loss` and `train/pairs_per_second` (all ranks together) per step, `val/loss` and `val/explained` per
    validation. It stores no hyperparameters, so that checkpoints load with `weights_only=True`; the network's
    configuration is saved with the NPNet.

    Args:
        npnet: the network to train.
        optimizer: called with the parameter groups. Gates, biases and norms get no weight decay.
        scheduler: called with the optimizer and `num_training_steps`, as those of
            `diffusers.optimization`; it steps once per optimizer step. None keeps the learning rate.
    """

    def __init__(
        self, npnet: AnyNPNet, optimizer: Callable[..., Optimizer], scheduler: Callable[..., LRScheduler] | None = None
    ):
        super().__init__()
        self.npnet = npnet
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.explained = ExplainedVariance()
        self._last_batch_end: float | None = None

    def forward(self, noise: Tensor, embeds: Tensor, pooled: Tensor | None = None) -> Tensor:
        """Predicts the golden noise: (B, C, H, W), (B, L, D) and perhaps (B, P) to (B, C, H, W)."""
        return self.npnet.golden(noise, PromptEmbedding(embeds, pooled=pooled))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The batch's loss."""
        loss = F.mse_loss(self(batch["noise"], batch["embeds"], batch.get("pooled")), batch["golden"])
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch["noise"]))
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Adds the batch to the validation's figures."""
        noise, golden = batch["noise"], batch["golden"]
        predicted = self(noise, batch["embeds"], batch.get("pooled"))
        self.explained.update(predicted, golden, noise)
        self.log("val/loss", F.mse_loss(predicted, golden), batch_size=len(noise), sync_dist=True)
        self.log("val/explained", self.explained, prog_bar=True, batch_size=len(noise))

    def configure_optimizers(self) -> Any:
        """Builds the optimizer and the scheduler from their partials."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        # Gates, biases and the weights of norms are exactly the parameters with one dimension.
        groups = [
            {"params": [p for p in parameters if p.ndim > 1]},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = self.optimizer(groups)
        if self.scheduler is None:
            return optimizer
        scheduler = self.scheduler(optimizer, num_training_steps=self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_epoch_start(self) -> None:
        """Restarts the clock, so that no validation counts as training."""
        self._last_batch_end = None

    def on_train_batch_end(self, outputs: Any, batch: dict[str, Any], batch_idx: int) -> None:
        """Logs the throughput from the end of one batch to the end of the next, waiting for data included."""
        now = time.perf_counter()
        if self._last_batch_end is not None:
            pairs = len(batch["noise"]) * self.trainer.world_size
            self.log("train/pairs_per_second", pairs / (now - self._last_batch_end))
        self._last_batch_end = now
