"""The distribution of good noises: fresh noise learns to become the good noise that optimal transport couples it with.

The coupling is that of flow matching by optimal transport within a batch (Tong et al., arXiv 2302.00482), here of the
noises of one prompt only; across prompts it would skew what each sees (Cheng and Schwing, arXiv 2503.10636). There is
one step, so that a squared error learns the mean of what a noise may be coupled with.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from golden_noise.npnet import AnyNPNet
from golden_noise.objectives.base import Batch, Mode, Outcome
from golden_noise.pipelines.lazy import LazyPipeline
from golden_noise.pipelines.prompt_embedding import PromptEmbedding
from golden_noise.search.judging import derived_noise

FRESH = 2**31  # a use of a noise that no search has


@dataclass(frozen=True)
class Transport:
    """Regresses good noises from fresh ones, coupled within each prompt of the batch; the pairs' own noise is not used.

    It learns from searches that find noise anywhere, such as `best_of_n`. Batches need many noises of each prompt.
    """

    reads: Literal["pairs"] = "pairs"
    monitor: str = "val/explained"
    mode: Mode = "max"

    def __call__(self, npnet: AnyNPNet, batch: Batch, prompt: PromptEmbedding, pipeline: LazyPipeline) -> Outcome:
        noise = coupled(derived_noise(batch["noise"], FRESH), batch["golden"], batch["prompt"])
        golden = npnet.golden(noise, prompt)
        return Outcome(F.mse_loss(golden, batch["golden"]), golden, noise=noise)


def coupled(noise: Tensor, golden: Tensor, prompts: Sequence[str]) -> Tensor:
    """The noises (B, C, H, W) in the order in which those of each prompt are nearest to its good noises, in all."""
    order = torch.arange(len(noise))
    for text in dict.fromkeys(prompts):
        rows = torch.tensor([i for i, each in enumerate(prompts) if each == text])
        costs = torch.cdist(golden[rows].flatten(1).float(), noise[rows].flatten(1).float()).square()
        order[rows] = rows[torch.from_numpy(linear_sum_assignment(costs.cpu().numpy())[1])]
    return noise[order.to(noise.device)]
