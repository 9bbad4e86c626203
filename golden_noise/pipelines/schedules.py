"""Deterministic samplers as searches see them: noise levels, and moves between two of them, either way.

A level is named by its timestep, which is also an input of the denoiser; every path ends at timestep 0.
"""

from typing import Any, Protocol

import numpy as np
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from torch import Tensor

from golden_noise.errors import UserError, first_line

OPTION = "pipeline.model.scheduler"


class Schedule(Protocol):
    """The noise levels of a model, and what its denoiser's output says about them."""

    @property
    def noisiest(self) -> float:
        """The timestep of pure noise."""
        ...

    def timesteps(self, steps: int) -> Tensor:
        """The timesteps (steps,) at which the denoiser is called, in descending order.

        Raises:
            UserError: a schedule whose steps cannot be undone.
        """
        ...

    def prediction(self, output: Tensor, latents: Tensor, timestep: float) -> Tensor:
        """What `move` needs, from the denoiser's output (B, C, H, W) float32 for these latents."""
        ...

    def move(self, latents: Tensor, prediction: Tensor, start: float, end: float) -> Tensor:
        """Latents (B, C, H, W) at the level `start` brought to the level `end`, noisier or not.

        With one and the same prediction the move back undoes the move.
        """
        ...


class DDIM:
    """Diffusion with DDIM's moves, at a model's own noise schedule and timestep spacing, whatever its sampler is.

    The prediction is the noise.

    Args:
        config: of the model's scheduler.

    Attributes:
        alphas_cumprod: cumulative alphas (1000,) float32 on the CPU: 1 is no noise, 0 is all noise.
    """

    def __init__(self, config: Any):
        # Configs that lack clip_sample would turn it on, and then no step could be inverted.
        self._scheduler = DDIMScheduler.from_config(config, clip_sample=False, set_alpha_to_one=False)
        self.alphas_cumprod: Tensor = self._scheduler.alphas_cumprod
        self.parameterisation: str = config.prediction_type

    @property
    def noisiest(self) -> int:
        return len(self.alphas_cumprod) - 1

    def timesteps(self, steps: int) -> Tensor:
        if self._scheduler.config.timestep_spacing == "linspace":  # DDIM's own steps do not lead from one to the next
            raise UserError(
                f"timestep_spacing=linspace cannot be inverted: {OPTION}.timestep_spacing=leading or trailing"
            )
        try:
            self._scheduler.set_timesteps(steps)
        except ValueError as error:  # an unknown spacing, or more steps than there are levels
            raise UserError(f"{OPTION} cannot give a search {steps} steps: {first_line(error)}") from error
        if self._scheduler.timesteps.max() > self.noisiest:  # the offset of a spacing leads beyond the last level
            raise UserError(f"{OPTION} cannot give a search {steps} steps: the first would be beyond pure noise")
        if self.alphas_cumprod[self._scheduler.timesteps].min() == 0:  # nothing of the image is left there
            raise UserError(
                f"a step from zero terminal SNR cannot be inverted: {OPTION}.rescale_betas_zero_snr=false, "
                "or timestep_spacing=leading"
            )
        return self._scheduler.timesteps

    def prediction(self, output: Tensor, latents: Tensor, timestep: float) -> Tensor:
        """See `Schedule`.

        Raises:
            UserError: the model predicts neither the noise nor the velocity.
        """
        if self.parameterisation == "epsilon":
            return output
        if self.parameterisation == "v_prediction":
            alpha = self.alphas_cumprod[int(timestep)]
            return alpha.sqrt() * output + (1 - alpha).sqrt() * latents
        raise UserError(f"the scheduler predicts {self.parameterisation!r}; searches need 'epsilon' or 'v_prediction'")

    def move(self, latents: Tensor, prediction: Tensor, start: float, end: float) -> Tensor:
        """Song et al. 2010.02502, eq. 12 with eta = 0; see `Schedule`."""
        before, after = self.alphas_cumprod[int(start)], self.alphas_cumprod[int(end)]
        clean = (latents - (1 - before).sqrt() * prediction) / before.sqrt()
        return after.sqrt() * clean + (1 - after).sqrt() * prediction


class Flow:
    """Flow matching with Euler's moves: latents are (1 - s) clean + s noise at the level s = timestep / 1000.

    The prediction is the velocity noise - clean (Liu et al. 2209.03003; Esser et al. 2403.03206).

    Args:
        scheduler: the model's own.
        tokens: that the denoiser makes of the latents; more of them shift the levels of some schedules upwards.
        even: whether the levels are even before they are shifted, as Flux gives them.

    Raises:
        UserError: a sampler with another path than Euler's.
    """

    def __init__(self, scheduler: Any, tokens: int, even: bool = False):
        if not isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
            raise UserError(
                f"{OPTION}.name={type(scheduler).__name__} cannot be inverted: FlowMatchEulerDiscreteScheduler can"
            )
        self._scheduler = FlowMatchEulerDiscreteScheduler.from_config(scheduler.config)
        config, self._even = scheduler.config, even
        limits = config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift
        self._shift = calculate_shift(tokens, *limits) if config.use_dynamic_shifting else None

    @property
    def noisiest(self) -> float:
        return float(self._scheduler.config.num_train_timesteps)

    def timesteps(self, steps: int) -> Tensor:
        sigmas = np.linspace(1.0, 1 / steps, steps) if self._even else None
        self._scheduler.set_timesteps(steps, sigmas=sigmas, mu=self._shift)
        return self._scheduler.timesteps

    def prediction(self, output: Tensor, latents: Tensor, timestep: float) -> Tensor:
        return output

    def move(self, latents: Tensor, prediction: Tensor, start: float, end: float) -> Tensor:
        return latents + (end - start) / self.noisiest * prediction
