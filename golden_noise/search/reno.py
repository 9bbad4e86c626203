"""ReNO: noise that follows the gradient of a reward (arXiv 2406.04312)."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from golden_noise.errors import UserError
from golden_noise.metrics.base import DifferentiableMetric
from golden_noise.metrics.reward import WeightedReward
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.overflow import advice, are_finite
from golden_noise.pipelines.prompt_embedding import PromptEmbedding
from golden_noise.search.base import NoiseSearch
from golden_noise.search.judging import better, check_start
from golden_noise.search.regularisers import Regulariser, clipped, regulariser


@dataclass(frozen=True)
class ReNO:
    """Nesterov's gradient descent on -reward(image) + weight * R(noise) through the whole sampler.

    Each noise is a problem of its own: its gradient is clipped and its best iterate kept by itself. Kept is the one of
    the highest reward among the noise that it starts from and all `iterations` steps. (The published code never looks
    at the result of its last step.) The images are those of `Pipeline.generate`, which are the sampler's own where that
    is DDIM or Euler of flow matching.

    Cost in denoiser calls per image: (3 * iterations + 1) * steps, where a backward pass counts as two calls; one more
    for each step that checkpointing computes again, and `start`'s own. A guided step is two calls.

    Args:
        reward: the score to raise; evaluate with another one.
        steps: of the sampler, any number; None takes the pipeline's.
        iterations: gradient steps; more of them raise the reward, in the end at the expense of other metrics.
        lr: learning rate.
        momentum: Nesterov's, 0 for none.
        clip: largest norm of a noise's gradient.
        regulariser: norm (ReNO's own), mpgr, gper, sphere or none; see `golden_noise.search.regularisers`.
        weight: of the regulariser's penalty, None for its default (norm .01, mpgr 1).
        jacobian_steps: see `Pipeline.generate`; 0 spends no backward pass of the denoiser.
        checkpointing: less memory, more time.
        start: another search, from whose result this one starts.

    Raises:
        UserError: settings that make no sense, or a reward without gradients.
    """

    reward: DifferentiableMetric
    steps: int | None = None
    iterations: int = 50
    lr: float = 5.0
    momentum: float = 0.9
    clip: float = 0.1
    regulariser: str = "norm"
    weight: float | None = None
    jacobian_steps: int | None = None
    checkpointing: bool = False
    start: NoiseSearch | None = None

    def __post_init__(self) -> None:
        if isinstance(self.reward, WeightedReward):
            self.reward.require_gradients()
        elif not hasattr(self.reward, "loss"):
            raise UserError(
                f"search.reward: {type(self.reward).__name__} has no gradients; search=zero_order needs none"
            )
        if self.iterations < 1 or (self.steps is not None and self.steps < 1):
            raise UserError(
                f"search.iterations={self.iterations} must be >= 1 and search.steps={self.steps} >= 1 or null"
            )
        if not (0 < self.lr < math.inf and self.clip > 0 and 0 <= self.momentum < 1):
            raise UserError(
                f"search.lr={self.lr} and search.clip={self.clip} must be above 0 and search.momentum={self.momentum} "
                "from 0 to below 1"
            )
        check_start(self.start)
        _ = self._kept_normal  # reports a mistake now

    @cached_property
    def _kept_normal(self) -> Regulariser:
        return regulariser(self.regulariser, self.weight)

    def search(self, noise: Tensor, prompt: PromptEmbedding, pipeline: Pipeline) -> Tensor:
        """See `NoiseSearch`.

        Raises:
            UserError: a reward or gradient that is not finite, noise that the regulariser cannot handle, or see
                `pipelines.differentiable.walk`.
        """
        self._kept_normal.check(noise[0].numel())
        x = noise if self.start is None else self.start.search(noise, prompt, pipeline)
        x = x.to(pipeline.device, torch.float32, copy=True)
        velocity = torch.zeros_like(x)
        best, highest = x, x.new_full((len(x),), -torch.inf)
        for iteration in range(self.iterations + 1):
            last = iteration == self.iterations
            rewards, gradient = self._reward(x, prompt, pipeline, iteration, with_gradient=not last)
            chosen = rewards > highest
            best, highest = better(x, best, chosen), torch.where(chosen, rewards, highest)
            if not last:
                gradient = clipped(self._kept_normal.direction(gradient), self.clip)
                velocity = self.momentum * velocity + gradient
                x = self._kept_normal.project(x - self.lr * (gradient + self.momentum * velocity))
        return best.to(noise)

    def _reward(
        self, x: Tensor, prompt: PromptEmbedding, pipeline: Pipeline, iteration: int, with_gradient: bool
    ) -> tuple[Tensor, Tensor]:
        """Rewards (B,) of the noises, and the gradient (B, C, H, W) of the whole loss, 0 unless it is wanted."""
        with torch.set_grad_enabled(with_gradient):
            x = x.detach().requires_grad_(with_gradient)
            images = pipeline.generate(x, prompt, self.steps, None, self.jacobian_steps, self.checkpointing)
            losses = self.reward.loss(images, prompt.texts).to(x)
            self._check(losses, "reward", prompt, pipeline, iteration)
            if not with_gradient:
                return -losses, torch.zeros_like(x)
            whole = (losses + self._kept_normal.loss(x, iteration)).sum()
            (gradient,) = torch.autograd.grad(whole, x)
        self._check(gradient, "reward's gradient", prompt, pipeline, iteration)
        return -losses.detach(), gradient

    def _check(self, values: Tensor, what: str, prompt: PromptEmbedding, pipeline: Pipeline, iteration: int) -> None:
        for text, finite in zip(prompt.texts, are_finite(values.reshape(len(values), -1)), strict=True):
            if not finite:
                remedy = f"lower search.lr ({self.lr:g})" if iteration else advice(pipeline.dtype)
                raise UserError(
                    f"the {what} of {text!r} is not finite in iteration {iteration} of the search: {remedy}"
                )
