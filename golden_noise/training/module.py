"""The LightningModule that trains NPNet by an objective.

A batch of pairs is a dict of `noise` and `golden` (B, C, H, W), `embeds` (B, L, D), for denoisers that take it `pooled`
(B, P), and `key` and `prompt` (B names and texts). A batch of prompts has `embedding` instead of the last three arrays.
"""

import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from golden_noise.metrics.base import Metric as ImageMetric
from golden_noise.noise import sampler_generators
from golden_noise.npnet import AnyNPNet
from golden_noise.objectives.base import Batch, Objective, Outcome
from golden_noise.objectives.pairs import Pairs
from golden_noise.pipelines.lazy import LazyPipeline
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
    """Trains a network by an objective.

    Logs `train/loss`, the objective's own figures and `train/pairs_per_second` (all ranks together) per step. Per
    validation it logs `val/loss` and the same figures, with pairs `val/explained`, and with prompts `val/score/NAME`
    for every metric. It stores no hyperparameters, so that checkpoints load with `weights_only=True`; the network's
    configuration is saved with the NPNet.

    Args:
        npnet: the network to train.
        optimizer: called with the parameter groups. Gates, biases and norms get no weight decay.
        scheduler: called with the optimizer and `num_training_steps`, as those of
            `diffusers.optimization`; it steps once per optimizer step. None keeps the learning rate.
        objective: gives the loss.
        pipeline: of the images; objectives that read pairs do without.
        metrics: called at the first validation with prompts: what scores the images beside the objective, by name.
    """

    def __init__(
        self,
        npnet: AnyNPNet,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., LRScheduler] | None = None,
        objective: Objective | None = None,
        pipeline: LazyPipeline | None = None,
        metrics: Callable[[], Mapping[str, ImageMetric]] = dict,
    ):
        super().__init__()
        self.npnet = npnet
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.objective = objective or Pairs()
        self.pipeline: Any = pipeline
        self.metrics = cache(metrics)
        self.explained = ExplainedVariance()
        self._last_batch_end: float | None = None

    def forward(self, batch: Batch) -> Outcome:
        """What the objective says of a batch."""
        prompt = batch.get("embedding")
        if prompt is None:
            prompt = PromptEmbedding(batch["embeds"], pooled=batch.get("pooled"), texts=tuple(batch.get("prompt", ())))
        return self.objective(self.npnet, batch, prompt, self.pipeline)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The batch's loss."""
        outcome, count = self(batch), len(batch["noise"])
        self.log("train/loss", outcome.loss, prog_bar=True, batch_size=count)
        for name, value in outcome.figures.items():
            self.log(f"train/{name}", value.detach(), prog_bar=True, batch_size=count)
        return outcome.loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Adds the batch to the validation's figures."""
        outcome, count = self(batch), len(batch["noise"])
        figures = {"loss": outcome.loss, **outcome.figures}
        if "golden" in batch:
            counted = slice(None) if outcome.kept is None else outcome.kept
            noise = batch["noise"] if outcome.noise is None else outcome.noise
            self.explained.update(*(x[counted] for x in (outcome.golden, batch["golden"], noise)))
            self.log("val/explained", self.explained, prog_bar=True, batch_size=count)
        else:
            figures |= self._scores(batch, outcome.golden)
        for name, value in figures.items():
            self.log(f"val/{name}", value, prog_bar=name != "loss", batch_size=count, sync_dist=True)

    def _scores(self, batch: Batch, golden: Tensor) -> dict[str, Tensor]:
        """The mean score of the images of golden noise by every metric."""
        if not (metrics := self.metrics()):
            return {}
        generators = sampler_generators(range(len(golden)))
        images = self.pipeline.loaded.sample(batch["embedding"], golden, generator=generators)
        scores = {name: metric.score(batch["prompt"], images) for name, metric in metrics.items()}
        return {f"score/{name}": each.mean().to(golden.device) for name, each in scores.items()}

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
