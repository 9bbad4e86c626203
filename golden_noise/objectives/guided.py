"""Unguided sampling learns to meet the guided image: NoiseRefine's objective (arXiv 2412.03895), or with Jacobians."""

from dataclasses import dataclass
from typing import Literal

import torch
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
        noise, loaded = batch["noise"], pipeline.loaded
        with torch.no_grad():
            target = loaded.clean(noise, prompt, self.target_steps, self.target_guidance)
        golden = npnet.golden(noise, prompt)
        clean = loaded.clean(golden, prompt, self.steps, 1.0, self.jacobian_steps, self.checkpointing)
        return Outcome(F.mse_loss(clean, target), golden)
