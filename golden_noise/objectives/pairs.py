"""The squared error on noise pairs (arXiv 2411.09502)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional as F

from golden_noise.npnet import AnyNPNet
from golden_noise.objectives.base import Batch, Mode, Outcome
from golden_noise.pipelines.lazy import LazyPipeline
from golden_noise.pipelines.prompt_embedding import PromptEmbedding


@dataclass(frozen=True)
class Pairs:
    """Regresses the golden noise of each pair.

    Args:
        filter: least gains {metric: golden - standard}, by the scores that are stored with the pairs. A pair that does
            not gain more in each of them counts for nothing; a batch gets smaller by it.
    """

    filter: Mapping[str, float] | None = None
    reads: Literal["pairs", "prompts"] = "pairs"
    monitor: str = "val/explained"
    mode: Mode = "max"

    def __call__(self, npnet: AnyNPNet, batch: Batch, prompt: PromptEmbedding, pipeline: LazyPipeline) -> Outcome:
        golden = npnet.golden(batch["noise"], prompt)
        if not self.filter:
            return Outcome(F.mse_loss(golden, batch["golden"]), golden)
        margins = torch.tensor([*self.filter.values()]).to(batch["gains"])
        kept = (batch["gains"] > margins).all(dim=1)
        errors = (golden - batch["golden"]).square().flatten(1).mean(dim=1)
        loss = (errors * kept).sum() / kept.sum().clamp_min(1)
        return Outcome(loss, golden, {"kept": kept.float().mean()}, kept)
