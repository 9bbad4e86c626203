"""Low-rank adapters (LoRA) that a config merges into a pipeline's models: all of a file, or none."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline
from diffusers.loaders import StableDiffusionXLLoraLoaderMixin
from diffusers.utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from golden_noise.errors import UserError, first_line
from golden_noise.hub import quiet
from golden_noise.pipelines.loading import check_floats
from golden_noise.pipelines.parts import find_weights

ADAPTER = "golden_noise"  # the adapters' name while they are apart from the models' own weights
HALVES = (("lora_A", "lora_B"), ("lora_down", "lora_up"), (".down.weight", ".up.weight"))  # of one adapter, by format


def load_loras(pipe: DiffusionPipeline, loras: Mapping[str, Mapping[str, Any]]) -> None:
    """Merge several files of adapters, each by its strength: as diffusers' `set_adapters` and `fuse_lora` do.

    Sums of floating point numbers depend on their order, so that of the names counts and not that of the settings.

    Args:
        loras: by a name of the user's, what `load_lora` takes.
    """
    for name in sorted(loras):
        load_lora(pipe, f"pipeline.model.loras.{name}", **loras[name])


def load_lora(
    pipe: DiffusionPipeline,
    option: str,
    source: str,
    weight_name: str | None = None,
    strength: float = 1.0,
    revision: str | None = None,
) -> None:
    """Merge low-rank adapters into the models, which then cost and behave like any others.

    Args:
        option: the setting that gave them, for errors.
        source: folder or hub id with the file `weight_name`, or the file itself, also ORG/NAME/FILE on the hub.
        strength: factor of what the adapters add to the weights.

    Raises:
        UserError: there is no such file, or not all of its adapters belong to these models.
    """
    if not hasattr(pipe, "load_lora_weights"):
        raise UserError(f"{option}: diffusers loads no adapters into a {type(pipe).__name__}")
    file = find_weights(option, source, weight_name, revision)
    what = f"{source}: {weight_name}" if weight_name else source
    _check_file(file, what)
    options: dict[str, Any] = {"weight_name": file.name, "use_safetensors": True}
    mapping = {"unet_config": pipe.unet.config} if isinstance(pipe, StableDiffusionXLLoraLoaderMixin) else {}
    try:
        with quiet("diffusers.loaders"):  # they warn of every model that a file has no adapters for
            state = pipe.lora_state_dict(str(file.parent), **options, **mapping)
            tensors: dict[str, Tensor] = state[0] if isinstance(state, tuple) else state  # with alphas, by family
            pipe.load_lora_weights(str(file.parent), **options, adapter_name=ADAPTER)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{what} does not fit the models ({first_line(error)})") from error
    except (LookupError, AttributeError, TypeError) as error:  # diffusers' own, of names that it cannot make out
        raise UserError(
            f"{what} holds no adapters that diffusers understands ({type(error).__name__}: {first_line(error)})"
        ) from error
    models = {name: getattr(pipe, name) for name in pipe._lora_loadable_modules if hasattr(pipe, name)}
    placed = {f"{name}.{own}": tensor for name, model in models.items() for own, tensor in _adapters(model)}
    expected = _named(tensors, models)
    if left := expected - placed.keys():
        raise UserError(
            f"{what}: {len(left)} of {len(expected)} tensors fit nothing in this pipeline, such as "
            f"{min(left)}: it was made for another model"
        )
    if made_up := _made_up(placed, expected):
        raise UserError(f"{what} lacks {made_up}, which would be random: is it complete?")
    changed = [name for name in models if any(tensor.startswith(f"{name}.") for tensor in placed)]
    if not changed:
        raise UserError(f"{what} holds no adapters for a {type(pipe).__name__}")
    try:
        pipe.fuse_lora(components=changed, lora_scale=strength, safe_fusing=True)
    except ValueError as error:
        raise UserError(f"{what} makes weights that are not finite") from error
    pipe.unload_lora_weights()


def _check_file(file: Path, what: str) -> None:
    """Check the names and dtypes of the tensors in a file.

    Raises:
        UserError: it cannot be read; a tensor holds integers or lacks the other half of its adapter; or adapters
            have scales of their own, which diffusers drops with a warning.
    """
    check_floats(file, what, free="alpha")
    with safe_open(file, "pt") as tensors:
        names = {*tensors.keys()}
    if any("dora_scale" in name for name in names):
        raise UserError(f"{what} holds DoRA adapters, whose scales diffusers cannot read: give plain LoRA")
    for name in sorted(names):
        for halves in HALVES:
            for one, other in (halves, halves[::-1]):
                if one in name and name.endswith(".weight") and name.replace(one, other) not in names:
                    raise UserError(f"{what}: {name} lacks its other half, {name.replace(one, other)}: is it complete?")


def _made_up(placed: Mapping[str, Tensor], given: set[str]) -> str | None:
    """The first adapter tensor that does not come from the file and changes its layer.

    A layer whose name ends like that of an adapted one gets adapters, too. These start with zeros and change nothing.
    """
    layers: dict[str, list[str]] = {}
    for name in placed:
        layers.setdefault(re.split(r"\.lo\w+_", name)[0], []).append(name)
    for names in layers.values():
        lacking = [name for name in names if name not in given]
        if lacking and (len(lacking) < len(names) or all(placed[name].any() for name in names)):
            return min(lacking)
    return None


def _adapters(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """A model's adapter tensors, under the names that they have in a file."""
    for name, tensor in model.state_dict().items():
        parts = name.split(".")
        if ADAPTER in parts:
            yield ".".join(part for part in parts if part != ADAPTER), tensor


def _named(tensors: Mapping[str, Tensor], models: Mapping[str, nn.Module]) -> set[str]:
    """The names that tensors of a file have once they are loaded, by the rules of diffusers."""
    names, rest = set(), {*tensors}
    for model_name, model in models.items():
        prefix = f"{model_name}."
        own = {name.removeprefix(prefix): tensors[name] for name in rest if name.startswith(prefix)}
        rest -= {prefix + name for name in own}
        if model_name.startswith("text_encoder"):
            own = convert_state_dict_to_peft(convert_state_dict_to_diffusers(own)) if own else own
            if not hasattr(model, "text_model"):
                own = {name.removeprefix("text_model."): tensor for name, tensor in own.items()}
        elif own and not any("lora_A" in name or ".lokr_" in name for name in own):
            own = convert_unet_state_dict_to_peft(own)
        names |= {prefix + name for name in own}
    return names | rest
