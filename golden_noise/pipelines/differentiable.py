"""Sampling that lets gradients through: from starting noise along the deterministic path to an image.

Shapes: B batch, C x H x W latents.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from golden_noise.errors import UserError
from golden_noise.pipelines.parts import upcast_vae
from golden_noise.pipelines.path import SamplerPath

if TYPE_CHECKING:
    from golden_noise.pipelines.base import Pipeline
    from golden_noise.pipelines.prompt_embedding import PromptEmbedding


def walk(
    pipeline: "Pipeline",
    noise: Tensor,
    prompt: "PromptEmbedding",
    steps: int,
    guidance: float,
    jacobian_steps: int | None = None,
    checkpointing: bool = False,
    preview_steps: int | None = None,
) -> Tensor:
    """Clean latents (B, C, H, W) float32 at the end of the path; see `Pipeline.generate` for the arguments.

    A step without its Jacobian is `a_t x + b_t stopgrad(prediction)`: the gradient still reaches the starting noise.
    (To cut the graph, as training a denoiser would, is to cut the noise off.)

    Raises:
        UserError: gradients are wanted of a denoiser that is offloaded, `jacobian_steps` is not one of 0 to `steps`, or
            `preview_steps` not one of 1 to `steps`.
    """
    taken = steps if preview_steps is None else preview_steps
    if not 1 <= taken <= steps:
        raise UserError(f"preview_steps={preview_steps} must be between 1 and the number of steps, {steps}")
    kept = taken if jacobian_steps is None else jacobian_steps
    if not 0 <= kept <= taken:
        raise UserError(f"jacobian_steps={jacobian_steps} must be between 0 and the number of steps, {taken}")
    x = noise.to(pipeline.device, torch.float32)
    if x.requires_grad and hasattr(pipeline.denoiser, "_hf_hook"):
        raise UserError("a model that is offloaded gives no gradients: add pipeline.model.memory.offload=none")
    guidance = max(1.0, guidance)  # as diffusers: below 1 there is none
    path = SamplerPath.of(pipeline, prompt, steps, preview_steps)

    def down(x: Tensor, step: int) -> Tensor:
        with frozen(pipeline.denoiser, x):
            return path.down(x, step, guidance)

    for step in range(taken):
        if taken - step > kept:
            start, end = path.levels[step : step + 2]
            with torch.no_grad():
                prediction = pipeline.predict(x, start, prompt, guidance)
            x = pipeline.schedule.move(x, prediction, start, end)
        elif checkpointing:
            x = checkpoint(down, x, step, use_reentrant=False, preserve_rng_state=False)
        else:
            x = down(x, step)
    return x


@contextmanager
def frozen(model: nn.Module, x: Tensor) -> Iterator[None]:
    """Keeps gradients that `x` wants from the model's own parameters.

    Only meanwhile: with frozen weights some kernels differ, and images would not be diffusers' own to the bit.
    """
    parameters = [p for p in model.parameters() if p.requires_grad] if x.requires_grad else []
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def decode(vae: Any, latents: Tensor, checkpointing: bool = False) -> Tensor:
    """Images (B, 3, 8 H, 8 W) float32 in [0, 1] of clean latents, as diffusers' pipelines decode them.

    Args:
        vae: an AutoencoderKL. One that overflows in float16 becomes float32, as diffusers makes it for each image.
    """
    config = vae.config
    if vae.dtype == torch.float16 and config.force_upcast:
        upcast_vae(vae)
    scaled = latents / config.scaling_factor
    if config.get("latents_mean") is not None and config.get("latents_std") is not None:
        mean, std = (
            torch.tensor(config[name]).view(1, -1, 1, 1).to(latents) for name in ("latents_mean", "latents_std")
        )
        scaled = scaled * std + mean
    scaled = scaled + (config.get("shift_factor") or 0.0)

    def decoded(latents: Tensor) -> Tensor:
        with frozen(vae, latents):
            return vae.decode(latents.to(vae.dtype), return_dict=False)[0]

    if checkpointing:
        images = checkpoint(decoded, scaled, use_reentrant=False, preserve_rng_state=False)
    else:
        images = decoded(scaled)
    return (images.float() / 2 + 0.5).clamp(0, 1)
