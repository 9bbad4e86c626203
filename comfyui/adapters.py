"""Networks of `model=denoiser_lora`: adapters with which the MODEL's own denoiser predicts the move of the noise."""

import copy
from collections.abc import Sequence
from typing import Any

import comfy.lora
import torch
from comfy.samplers import CFGGuider, calc_cond_batch
from torch import Tensor

from .core.errors import UserError
from .core.load import Adapters
from .settings import Settings

OUTPUT = "conv_out"  # the layer that the network replaces, where all others get adapters
HALVES = ("lora_A.weight", "lora_B.weight")
UNWANTED = {"control", "control_apply_to_uncond", "gligen", "hooks"}  # the network has learned prompts alone


class DenoiserNPNet:
    """Golden noise = noise + denoiser'(noise, T, prompt): one call of the MODEL with adapters, at its noisiest level.

    ComfyUI patches the weights, as for any LoRA, and restores them when the MODEL is next used without.
    """

    def __init__(self, adapters: Adapters, name: str):
        self.name = name
        self.layers: dict[str, dict[str, Tensor]] = {}
        for weight, value in adapters.weights.items():
            layer, dot, half = weight.rpartition(".lora_")
            self.layers.setdefault(layer, {})[f"lora_{half}" if dot else weight] = value
        if any(set(halves) != set(HALVES) for halves in self.layers.values()) or OUTPUT not in self.layers:
            raise UserError(f"{name} is a whole denoiser, or one that is no U-Net: only adapters of a U-Net work here")

    def move(self, noise_BCHW: Tensor, conds: list[dict[str, Any]], model: Any, settings: Settings) -> Tensor:
        """Golden noise minus noise. ComfyUI itself combines several prompts, by their areas and masks.

        Raises:
            UserError: there is no MODEL, or not the one that the adapters were trained for.
        """
        if model is None:
            raise UserError(f"{self.name} was trained with model=denoiser_lora and needs the MODEL: connect it, too")
        guider, call = CFGGuider(self._with_adapters(model)), _OneCall()
        prompts = [{key: value for key, value in cond.items() if key not in UNWANTED} for cond in conds]
        guider.original_conds = {"positive": prompts}
        noisiest = float(model.get_model_object("model_sampling").sigma_max)
        sigmas = torch.tensor([noisiest, 0.0])
        guider.sample(noise_BCHW, torch.zeros_like(noise_BCHW), call, sigmas, disable_pbar=True, seed=0)
        return call.output.to(noise_BCHW.device)

    def _with_adapters(self, model: Any) -> Any:
        """The bare denoiser with adapters: no guidance, no caches, nor whatever else other nodes add to a MODEL."""
        patched = model.clone()
        patched.model_options = {"transformer_options": {}}
        patched.wrappers.clear()
        patched.callbacks.clear()
        patched.add_object_patch("model_sampling", _as_it_is(model.get_model_object("model_sampling")))
        patched.add_patches(self._patches(model.model))
        return patched

    def _patches(self, denoiser: Any) -> dict[str, Any]:
        """ComfyUI's patches of the denoiser's weights, by its own names for them."""
        names, shapes = comfy.lora.model_lora_keys_unet(denoiser, {}), _shapes(denoiser)
        lora: dict[str, Tensor] = {}
        for layer, halves in self.layers.items():
            given = f"lora_unet_{layer.replace('.', '_')}"
            down, up = (halves[half] for half in HALVES)
            have, want = (up.shape[0], *down.shape[1:]), shapes.get(names.get(given), ())
            if tuple(have) != tuple(want):
                raise UserError(
                    f"{self.name} was trained for another model: {layer} has shape {list(have)} there and "
                    f"{list(want) or 'does not exist'} in this MODEL"
                )
            lora |= {f"{given}.{half}": value for half, value in halves.items()}
        patches = comfy.lora.load_lora(lora, names)
        output = names[f"lora_unet_{OUTPUT}"]
        down, up = (self.layers[OUTPUT][half] for half in HALVES)
        bias = output.removesuffix("weight") + "bias"
        patches[output] = ("set", ((up.flatten(1) @ down.flatten(1)).view(shapes[output]),))
        patches[bias] = ("set", (torch.zeros(shapes[bias]),))
        return patches


class _OneCall:
    """A sampler that calls the denoiser once and keeps what it says."""

    output: Tensor

    def sample(
        self,
        guider: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        noise: Tensor,
        *rest: Any,
        **others: Any,
    ) -> Tensor:
        prompts, options = [guider.conds["positive"]], extra_args["model_options"]
        (self.output,) = calc_cond_batch(guider.inner_model, prompts, noise, sigmas[:1].expand(len(noise)), options)
        return self.output


def _as_it_is(sampling: Any) -> Any:
    """The model's noise levels, but its denoiser sees the noise as it is, and so is seen what it says."""

    class AsItIs(type(sampling)):  # type: ignore[misc]
        def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
            return noise

        def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
            return model_output

    plain = copy.deepcopy(sampling)
    plain.__class__ = AsItIs
    return plain


def _shapes(denoiser: Any) -> dict[str, Sequence[int]]:
    return {name: value.shape for name, value in denoiser.state_dict().items()}
