"""Which models the nodes know, and what to say of shapes that do not belong together.

Shapes: B batch, C x H x W noise, L tokens of the prompt, D the width of their embedding.
"""

from collections.abc import Sequence
from typing import Any

from comfy.ldm.hydit.models import HunYuanDiT
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor

from .core.errors import UserError
from .core.load import Adapters

TOKENS = 77  # of CLIP; longer prompts have a multiple
FAMILIES = {2048: "SDXL", 768: "Stable Diffusion 1.5", 1024: "Stable Diffusion 2.x or Hunyuan-DiT"}  # by D


def check_family(model: Any) -> None:
    """Refuses a MODEL whose prompts no NPNet reads.

    Raises:
        UserError: it is none of the families.
    """
    if not isinstance(model.model.diffusion_model, UNetModel | HunYuanDiT):
        raise UserError(
            "Golden Noise works with SDXL and its relatives, Stable Diffusion 1.5 and 2.x, and Hunyuan-DiT: this MODEL "
            f"is a {type(model.model).__name__}, bypass the node"
        )


def check_fit(name: str, network: Any, noise_BCHW: Tensor, embeds_BLD: Tensor) -> None:
    """Refuses noise or a prompt that a network was not made for; other heights and widths are fine.

    Raises:
        UserError: naming both shapes.
    """
    (tokens, width), given = network.embeds_shape, embeds_BLD.shape[1:]
    if given[1] != width or given[0] < tokens:
        raise UserError(
            f"{name} reads prompts of {_prompt(network.embeds_shape)}, this prompt has {_prompt(given)}: load an NPNet "
            "that was trained for this model"
        )
    if noise_BCHW.shape[1] != network.latent_shape[0]:
        want, have = (_shape(shape) for shape in (network.latent_shape, noise_BCHW.shape[1:]))
        raise UserError(f"{name} improves noise of {want}, this noise has {have}: load an NPNet of this model")


def described(loaded: Any) -> str:
    """What a network is, and what it was trained for if its file says so, in a few words."""
    if isinstance(loaded, Adapters):
        what = f"adapters of rank {loaded.config['rank']} for the MODEL's own denoiser"
    else:
        what = f"noise of {_shape(loaded.latent_shape)}, prompts of {_prompt(loaded.embeds_shape)}"
    known = ", ".join(f"{name}={value}" for name, value in loaded.trained_for.items())
    return f"{what}; trained for {known}" if known else what


def _prompt(shape: Sequence[int]) -> str:
    family = FAMILIES.get(shape[1]) if shape[0] % TOKENS == 0 else None
    return f"{_shape(shape)} ({family})" if family else _shape(shape)


def _shape(shape: Sequence[int]) -> str:
    return "x".join(str(size) for size in shape)
