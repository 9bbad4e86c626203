"""The noise on its way to a sampler, and the networks that improve it there.

Shapes: B batch, C x H x W noise.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from .adapters import DenoiserNPNet
from .npnets import NPNet
from .settings import Settings

log = logging.getLogger("golden-noise")

NO_IMAGE = "it is not that of an image"
LATE = 0.15  # of the noise schedule: an image that gets less noise than there is not drawn anew
Conds = list[dict[str, Any]]  # prompts, as ComfyUI's guiders hold them


@dataclass(frozen=True)
class GoldenNoise:
    """A network, and how it is used."""

    npnet: NPNet | DenoiserNPNet
    settings: Settings

    @torch.no_grad()
    def of(self, noise_BCHW: Tensor, conds: Conds, model: Any = None) -> Tensor:
        """The golden noise for the prompts that are active at the start, in the dtype and on the device of the noise.

        Args:
            noise_BCHW: of unit variance, as ComfyUI draws it.
            conds: the positive prompts.
            model: the MODEL, which networks of model=denoiser_lora need.

        Raises:
            UserError: the network was made for another model.
        """
        if self.settings.strength == 0:
            return noise_BCHW
        active = [cond for cond in conds if _is_active_at_start(cond)]
        if not active:
            return left_alone(noise_BCHW, "no positive prompt is active at the start")
        if len(active) > 1:
            log.warning("Golden Noise: %d prompts start together, the noise moves by their mean", len(active))
        move = self.npnet.move(noise_BCHW, active, model, self.settings)
        return (noise_BCHW + self.settings.strength * move).to(noise_BCHW.dtype)

    def in_guider(self, noise_BCHW: Tensor, guider: Any) -> Tensor:
        """`of` the prompts and the model of a guider."""
        return self.of(noise_BCHW, guider.original_conds.get("positive") or [], guider.model_patcher)


class GoldenSource:
    """NOISE that is golden: what any node that takes NOISE asks for it."""

    def __init__(self, noise: Any, golden: GoldenNoise, conds: Conds, model: Any):
        self.noise, self.golden, self.conds, self.model = noise, golden, conds, model
        self.seed = noise.seed

    def generate_noise(self, latent: dict[str, Any]) -> Tensor:
        """Golden noise for a LATENT."""
        noise = self.noise.generate_noise(latent)
        if not noise.is_nested and not noise.any():
            return noise
        return self.golden.of(noise, self.conds, self.model) if _is_image(noise) else left_alone(noise, NO_IMAGE)


def changing_noise(model: Any, change: Callable[[Tensor, Any], Tensor]) -> Any:
    """A MODEL all of whose samplers start from another noise, where they start from noise alone.

    Args:
        change: what makes the other noise, of the noise and the guider that samples.
    """

    def outer_sample(
        executor: Any, noise: Tensor, latent_image: Tensor, sampler: Any, sigmas: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        guider = executor.class_obj
        if noise.any():  # else a later stage, which adds none
            reason = _reason_to_leave(noise, latent_image, sigmas, guider.model_patcher)
            noise = left_alone(noise, reason) if reason else change(noise, guider)
        return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)

    changed = model.clone()
    changed.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "golden_noise", outer_sample)
    return changed


def left_alone(noise: Tensor, reason: str) -> Tensor:
    """The noise, with a line in the log that says why it is as it was."""
    log.warning("Golden Noise leaves the noise as it is: %s", reason)
    return noise


def _reason_to_leave(noise: Tensor, latent_image: Tensor, sigmas: Tensor, model: Any) -> str | None:
    if not _is_image(noise):
        return NO_IMAGE
    latest = model.get_model_object("model_sampling").percent_to_sigma(LATE)
    if latent_image.any() and float(sigmas[0]) < latest:
        return f"sampling starts from an image (sigma {float(sigmas[0]):.2f}), not from pure noise"
    return None


def _is_image(noise: Tensor) -> bool:
    return not noise.is_nested and noise.ndim == 4


def _is_active_at_start(cond: dict[str, Any]) -> bool:
    start = max(cond.get("start_percent", 0.0), cond.get("clip_start_percent", 0.0))
    end = min(cond.get("end_percent", 1.0), cond.get("clip_end_percent", 1.0))
    return start <= 0 < end and cond.get("cross_attn") is not None
