"""Images with pixels that are not finite: the VAE overflows in half precision. Saved, they would be black."""

from collections.abc import Sequence

import torch
from diffusers import DiffusionPipeline
from diffusers.image_processor import VaeImageProcessor
from torch import Tensor

from golden_noise.errors import UserError
from golden_noise.prompts import Prompt

HIGHER = {torch.float16: "bfloat16 or float32", torch.bfloat16: "float32"}


def advice(dtype: torch.dtype) -> str:
    """What to do about a pipeline of this dtype whose images are not finite."""
    if dtype not in HIGHER:
        return "check the weights (pipeline.model.source, vae, unet, loras) and what made the noise"
    return (
        f"try pipeline.model.dtype={HIGHER[dtype]}, pipeline.model.memory.vae_upcast=true, or another VAE "
        "(pipeline.model.vae)"
    )


def keep_overflow(pipe: DiffusionPipeline) -> None:
    """Let what a VAE gives stay infinite or NaN: diffusers would clamp infinite pixels to black and white."""

    def denormalize(images: Tensor) -> Tensor:
        return VaeImageProcessor.denormalize(images).masked_fill(~images.isfinite(), torch.nan)

    pipe.image_processor.denormalize = denormalize


def are_finite(batch: Tensor) -> list[bool]:
    """Whether all numbers of a sample are finite, for each sample of (B, ...)."""
    return batch.isfinite().flatten(1).all(dim=1).tolist()


def check_images(images: Tensor, prompts: Sequence[Prompt], noise: str, dtype: torch.dtype) -> None:
    """Check images (B, 3, H, W) of prompts before they are saved or scored.

    Args:
        noise: what they were drawn from, such as "golden".
        dtype: of the pipeline that drew them.

    Raises:
        UserError: one has pixels that are not finite.
    """
    for prompt, finite in zip(prompts, are_finite(images), strict=True):
        if not finite:
            raise UserError(
                f"the image of {prompt.text!r} (seed {prompt.seed}) from {noise} noise is not finite: {advice(dtype)}"
            )
