"""The gradient of a reward, through the sampler: HyperNoise's objective (arXiv 2508.09968), for any number of steps."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from golden_noise.metrics.base import DifferentiableMetric
from golden_noise.metrics.reward import WeightedReward
from golden_noise.npnet import AnyNPNet
from golden_noise.objectives.base import Batch, Mode, Outcome
from golden_noise.pipelines.lazy import LazyPipeline
from golden_noise.pipelines.prompt_embedding import PromptEmbedding


@dataclass(frozen=True)
class Reward:
    """`-reward(G(golden)) + beta / 2 mean((golden - scale x)^2)`, where G draws the image of golden noise for noise x.

    The penalty is a mean over the d numbers of a noise, as in HyperNoise's code. Its equation 11 has a sum instead,
    which is `beta=d` here (16,384 for SDXL at 512 pixels). The penalty bounds how far the distribution of the golden
    noise, and so of the images, is from the one that the model was trained for.

    Args:
        reward: what the images should score highly in.
        beta: weight of the penalty.
        scale: of the noise that the penalty draws golden noise towards: below 1 it may shrink.
        steps: of the sampler; None: the pipeline's.
        guidance: likewise.
        jacobian_steps: see `Pipeline.generate`.
        checkpointing: likewise.

    Raises:
        UserError: the reward has no gradients.
    """

    reward: DifferentiableMetric
    beta: float = 1.0
    scale: float = 1.0
    steps: int | None = None
    guidance: float | None = None
    jacobian_steps: int | None = None
    checkpointing: bool = False
    reads: Literal["pairs", "prompts"] = "prompts"
    monitor: str = "val/loss"
    mode: Mode = "min"

    def __post_init__(self) -> None:
        if isinstance(self.reward, WeightedReward):
            self.reward.require_gradients()

    def __call__(self, npnet: AnyNPNet, batch: Batch, prompt: PromptEmbedding, pipeline: LazyPipeline) -> Outcome:
        noise = batch["noise"]
        golden = npnet.golden(noise, prompt)
        images = pipeline.loaded.generate(
            golden, prompt, self.steps, self.guidance, self.jacobian_steps, self.checkpointing
        )
        reward = -self.reward.loss(images, prompt.texts).mean()
        penalty = moved(golden, self.scale * noise)
        return Outcome(-reward + self.beta * penalty, golden, {"reward": reward, "penalty": penalty})


def moved(golden: Tensor, noise: Tensor) -> Tensor:
    """Half the mean square of the move, a scalar: the KL divergence per number of two unit Gaussians that far apart."""
    return (golden - noise).square().mean() / 2
