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
            offsets = torch.stack([derived_noise(noise, i) for i in range(self.group)]).to(golden)
            scores = torch.stack([self._scores(golden + self.sigma * each, prompt, pipeline) for each in offsets])
        # log N(sample; golden, sigma), whose gradient by the prediction is the offset / sigma; a mean over the numbers
        # instead of their sum, as in the penalty.
        samples = (golden.detach() + self.sigma * offsets - golden) / self.sigma
        log_probs = -samples.square().flatten(2).mean(dim=2) / 2
        loss = -(advantages(scores).to(log_probs) * log_probs).mean() + self.beta * penalty
        return Outcome(loss, golden, {"reward": scores.mean(), "penalty": penalty})

    @torch.no_grad()
    def _scores(self, noise: Tensor, prompt: PromptEmbedding, pipeline: LazyPipeline) -> Tensor:
        """Scores (B,) of the images of noises."""
        return self.reward.score(prompt.texts, pipeline.loaded.sample(prompt, noise))


def advantages(scores: Tensor) -> Tensor:
    """Scores (group, B) less their group's mean, over its deviation; 0 where all of a group are equal."""
    deviation = scores.std(dim=0, correction=0)
    centred = (scores - scores.mean(dim=0)) / deviation.clamp_min(1e-6)
    return centred.clamp(-LIMIT, LIMIT)
