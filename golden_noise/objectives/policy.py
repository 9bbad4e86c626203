"""Rewards without gradients: a Gaussian policy around the prediction, with advantages relative to its group.

The policy gradient is REINFORCE's (Williams 1992) with the group's mean and deviation as baseline and scale, as in GRPO
(Shao et al. 2024, arXiv 2402.03300). Noise PPO (arXiv 2506.12036) learns starting noise by a policy, too.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from golden_noise.errors import UserError
from golden_noise.metrics.base import Metric
from golden_noise.npnet import AnyNPNet
from golden_noise.objectives.base import Batch, Mode, Outcome
from golden_noise.objectives.reward import moved
from golden_noise.pipelines.lazy import LazyPipeline
from golden_noise.pipelines.prompt_embedding import PromptEmbedding
from golden_noise.search.judging import derived_noise

LIMIT = 5.0  # of an advantage, in standard deviations


@dataclass(frozen=True)
class Policy:
    """Draws a group of noises around each prediction, and moves the prediction towards those that score above average.

    Args:
        reward: any metric, the exact detector included.
        group: noises, and so images, for each prompt.
        sigma: standard deviation of the noises around the prediction.
        beta: weight of the penalty on the move, as in `objective=reward`.
        scale: likewise.

    Raises:
        UserError: a group below 2, or no spread.
    """

    reward: Metric
    group: int = 8
    sigma: float = 0.2
    beta: float = 1.0
    scale: float = 1.0
    reads: Literal["pairs", "prompts"] = "prompts"
    monitor: str = "val/reward"
    mode: Mode = "max"

    def __post_init__(self) -> None:
        if self.group < 2 or self.sigma <= 0:
            raise UserError(f"objective.group={self.group} must be >= 2 and objective.sigma={self.sigma} above 0")

    def __call__(self, npnet: AnyNPNet, batch: Batch, prompt: PromptEmbedding, pipeline: LazyPipeline) -> Outcome:
        noise = batch["noise"]
        golden = npnet.golden(noise, prompt)
        penalty = moved(golden, self.scale * noise)
        if not torch.is_grad_enabled():  # a validation: of what will be used, the prediction itself
            reward = self._scores(golden, prompt, pipeline).mean()
            return Outcome(self.beta * penalty - reward, golden, {"reward": reward, "penalty": penalty})
        with torch.no_grad():
            # They follow from the noise: after a restart and on every number of ranks they are the same.
            offsets = group_offsets(noise, self.group).to(golden)
            scores = torch.stack([self._scores(golden + self.sigma * each, prompt, pipeline) for each in offsets])
        loss = policy_loss(golden, offsets, torch.full(noise.shape[:1], self.sigma).to(golden), scores)
        loss = loss + self.beta * penalty
        return Outcome(loss, golden, {"reward": scores.mean(), "penalty": penalty})

    @torch.no_grad()
    def _scores(self, noise: Tensor, prompt: PromptEmbedding, pipeline: LazyPipeline) -> Tensor:
        """Scores (B,) of the images of noises."""
        return self.reward.score(prompt.texts, pipeline.loaded.sample(prompt, noise))


def group_offsets(noise: Tensor, group: int) -> Tensor:
    """The offsets (group, B, C, H, W) of a group around the prediction for each noise (B, C, H, W)."""
    return torch.stack([derived_noise(noise, i) for i in range(group)])


def policy_loss(golden: Tensor, offsets: Tensor, sigma: Tensor, scores: Tensor) -> Tensor:
    """Minus the mean of advantage times log-probability, a scalar.

    Args:
        golden: (B, C, H, W) the predictions.
        offsets: (group, B, C, H, W) standard normal.
        sigma: (B,) their scale.
        scores: (group, B) of the images of `golden + sigma * offsets`; NaN leaves one out.
    """
    spread = sigma[:, None, None, None]
    # log N(sample; golden, sigma), whose gradient by the prediction is the offset / sigma; a mean over the numbers
    # instead of their sum, as in the penalty.
    samples = (golden.detach() + spread * offsets - golden) / spread
    log_probs = -samples.square().flatten(2).mean(dim=2) / 2
    weighted = advantages(scores).to(log_probs) * log_probs
    return -(weighted.sum(dim=0) / scores.isfinite().sum(dim=0).to(log_probs)).mean()


def advantages(scores: Tensor) -> Tensor:
    """Scores (group, B) less their group's mean, over its deviation; 0 where all of a group are equal, or for NaN."""
    centred = scores - scores.nanmean(dim=0)
    deviation = centred.square().nanmean(dim=0).sqrt()
    return (centred / deviation.clamp_min(1e-6)).clamp(-LIMIT, LIMIT).nan_to_num()
