"""Unguided sampling learns to meet the guided image: NoiseRefine's objective (arXiv 2412.03895), or with Jacobians."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from golden_noise.npnet import AnyNPNet
from golden_noise.objectives.base import Batch, Mode, Outcome
from golden_noise.pipelines.lazy import LazyPipeline
from golden_noise.pipelines.prompt_embedding import PromptEmbedding


@dataclass(frozen=True)
class Guided:
    """The squared error between clean latents: of golden noise without guidance, and of plain noise with it.

    NoiseRefine's multistep score distillation (MSD) has `jacobian_steps=0`. Its weights and code are not published; the
    paper trains adapters of rank 128 on targets of 20 steps with guidance 3 to 7.5.

    Args:
        target_steps: steps of the guided image; None: the pipeline's.
        target_guidance: its guidance.
        steps: steps without guidance from golden noise; None: the pipeline's.
        jacobian_steps: see `Pipeline.generate`.
        checkpointing: likewise.
    """

    target_steps: int | None = None
    target_guidance: float = 3.0
    steps: int | None = None
    jacobian_steps: int | None = 0
    checkpointing: bool = False
    reads: Literal["pairs", "prompts"] = "prompts"
    monitor: str = "val/loss"
    mode: Mode = "min"

    def __call__(self, npnet: AnyNPNet, batch: Batch, prompt: PromptEmbedding, pipeline: LazyPipeline) -> Outcome:
        with torch.no_grad():
            target = pipeline.loaded.clean(batch["noise"], prompt, self.target_steps, self.target_guidance)
        return _meet(self, target, npnet, batch, prompt, pipeline)


@dataclass(frozen=True)
class StoredGuided:
    """`Guided` with targets that were collected: no guided sampling, but the same noises in every epoch.

    Args:
        stored: `steps` and `guidance` of the targets, which the collection must have had, too.
        steps: see `Guided`, as the next two.
        jacobian_steps: likewise.
        checkpointing: likewise.
    """

    stored: Mapping[str, float]
    steps: int | None = None
    jacobian_steps: int | None = 0
    checkpointing: bool = False
    reads: Literal["guided"] = "guided"
    monitor: str = "val/loss"
    mode: Mode = "min"

    def __call__(self, npnet: AnyNPNet, batch: Batch, prompt: PromptEmbedding, pipeline: LazyPipeline) -> Outcome:
        return _meet(self, batch["guided"].float(), npnet, batch, prompt, pipeline)


def _meet(
    how: Guided | StoredGuided,
    target: Tensor,
    npnet: AnyNPNet,
    batch: Batch,
    prompt: PromptEmbedding,
    pipeline: LazyPipeline,
) -> Outcome:
    """How far unguided sampling from golden noise ends from the target (B, C, H, W)."""
    golden = npnet.golden(batch["noise"], prompt)
    clean = pipeline.loaded.clean(golden, prompt, how.steps, 1.0, how.jacobian_steps, how.checkpointing)
    return Outcome(F.mse_loss(clean, target), golden)
