"""The devices of a pipeline's models, and how to save memory or time. conf/memory explains the options."""

from typing import Any

import torch
from diffusers import DiffusionPipeline

from golden_noise.errors import UserError
from golden_noise.pipelines.parts import upcast_vae

OPTION = "pipeline.model.memory"
OFFLOADS = ("none", "model", "sequential")


def to_device(
    pipe: DiffusionPipeline,
    denoiser: Any,
    device: torch.device,
    offload: str = "none",
    vae_slicing: bool = False,
    vae_tiling: bool = False,
    vae_upcast: bool = False,
    attention: str | None = None,
    compile: bool = False,
    channels_last: bool = False,
) -> None:
    """Move a pipeline to its device.

    Args:
        denoiser: the part of it that predicts the noise.

    Raises:
        UserError: an unknown offload or one without a GPU, or an attention backend that cannot be used.
    """
    if offload not in OFFLOADS:
        raise UserError(f"{OPTION}.offload={offload} must be {', '.join(OFFLOADS[:-1])} or {OFFLOADS[-1]}")
    if offload != "none" and device.type == "cpu":
        raise UserError(f"{OPTION}.offload={offload} needs a GPU: leave it at none on device=cpu")
    if channels_last:
        for model in (denoiser, pipe.vae):
            model.to(memory_format=torch.channels_last)
    if attention is not None:
        _set_attention(denoiser, attention)
    if vae_slicing:
        pipe.vae.enable_slicing()
    if vae_tiling:
        pipe.vae.enable_tiling()
    if vae_upcast:
        upcast_vae(pipe.vae)
    if compile:
        denoiser.compile()
    if offload == "none":
        pipe.to(device)
    else:
        getattr(pipe, f"enable_{offload}_cpu_offload")(device=device)


def _set_attention(denoiser: Any, name: str) -> None:
    """Choose the attention backend of a denoiser that goes through diffusers' dispatcher; UNets do not."""
    processors = [module.processor for module in denoiser.modules() if hasattr(module, "processor")]
    if not any(hasattr(processor, "_attention_backend") for processor in processors):
        raise UserError(
            f"{OPTION}.attention={name} has no effect on a {type(denoiser).__name__}, which always calls PyTorch's: "
            "leave it at null"
        )
    try:
        denoiser.set_attention_backend(name)
    except (ValueError, RuntimeError, ImportError) as error:
        raise UserError(f"{OPTION}.attention={name} cannot be used here: {' '.join(str(error).split())}") from error
