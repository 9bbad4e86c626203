"""Parts that a config puts in the place of a pipeline's own: a scheduler, a denoiser's weights, a VAE, adapters."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, FluxPipeline
from diffusers.loaders import StableDiffusionXLLoraLoaderMixin
from diffusers.utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from golden_noise.errors import UserError
from golden_noise.pipelines.loading import check_gate, complete, first_line, why_missing
from golden_noise.weights import hub_problem, locate

ADAPTER = "golden_noise"  # the adapters' name while they are apart from the models' own weights


def set_scheduler(pipe: DiffusionPipeline, name: str, **arguments: Any) -> None:
    """Let a pipeline sample with another scheduler, at its own noise schedule but for the arguments given.

    Args:
        name: class of diffusers, such as "EulerDiscreteScheduler".
        arguments: of that class. All take `timestep_spacing`, as searches need it where the sampler itself has none.

    Raises:
        UserError: no such scheduler, or it has no such argument.
    """
    option = "pipeline.model.scheduler"
    kind = getattr(diffusers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin) and hasattr(kind, "step")):
        raise UserError(f"{option}.name={name} is no scheduler of diffusers, such as EulerDiscreteScheduler")
    for argument in arguments:
        if argument not in (*signature(kind).parameters, "timestep_spacing"):
            raise UserError(f"{option}.{argument}: a {name} has no such argument")
    own = dict(pipe.scheduler.config)
    for default in own.pop("_use_default_values", []):  # defaults of one class are not those of another
        own.pop(default, None)
    try:
        pipe.scheduler = getattr(diffusers, name).from_config(own | arguments)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise UserError(f"{option}.name={name} cannot be used here: {first_line(error)}") from error


def check_scheduler(pipe: DiffusionPipeline, flow: bool) -> None:
    """Check that a pipeline has a scheduler that can sample its kind of model.

    Args:
        flow: whether the model was trained by flow matching.

    Raises:
        UserError: it has not.
    """
    scheduler = pipe.scheduler
    said = f"pipeline.model.scheduler.name={type(scheduler).__name__} cannot"
    try:
        serves = _samples_flow(scheduler, isinstance(pipe, FluxPipeline)) if flow else _samples_diffusion(scheduler)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise UserError(f"{said} be used here: {first_line(error)}") from error
    if not serves:
        model, choice = ("flow matching", "FlowMatch") if flow else ("diffusion", "")
        raise UserError(
            f"{said} sample this pipeline, which is a {model} model: choose another, such as "
            f"{choice}EulerDiscreteScheduler"
        )


def _samples_flow(scheduler: Any, shifted: bool) -> bool:
    """Whether a scheduler goes the way of flow matching; `shifted`: by levels that the pipeline gives it."""
    if scheduler.config.get("use_flow_sigmas"):
        return True
    takes = signature(scheduler.set_timesteps).parameters.keys()
    needed = {"sigmas", "mu"} if shifted or scheduler.config.get("use_dynamic_shifting") else set()
    return "FlowMatch" in type(scheduler).__name__ and needed <= takes


def _samples_diffusion(scheduler: Any) -> bool:
    """Whether a scheduler goes from noise to an image along a diffusion's levels, told nothing but the prediction."""
    if not all(hasattr(scheduler, name) for name in ("init_noise_sigma", "scale_model_input", "alphas_cumprod")):
        return False
    needed = [p for p in signature(scheduler.step).parameters.values() if p.default is Parameter.empty]
    if len(needed) > 3 or scheduler.config.get("use_flow_sigmas"):  # more than prediction, timestep and latents
        return False
    scheduler.set_timesteps(4)
    return bool(scheduler.timesteps[0] > scheduler.timesteps[-1])  # the inverse ones go from the image to noise


def load_unet(pipe: DiffusionPipeline, source: str, weight_name: str, revision: str | None = None) -> None:
    """Replace all weights of the denoiser.

    Raises:
        UserError: there is no such file, or it holds another model's weights.
    """
    if not hasattr(pipe, "unet"):
        raise UserError(f"pipeline.model.unet: the denoiser of a {type(pipe).__name__} is no U-Net")
    file = _find_weights("pipeline.model.unet", source, weight_name, revision)
    try:
        tensors = load_file(file)
    except SafetensorError as error:
        raise UserError(f"{source}: cannot read {weight_name} ({first_line(error)}): is it complete?") from error
    own = {name: tensor.shape for name, tensor in pipe.unet.state_dict().items()}
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if wrong := {name for name in own.keys() | found.keys() if own.get(name) != found.get(name)}:
        raise UserError(
            f"{source}: {weight_name} does not fit the denoiser: {len(wrong)} of {len(own)} tensors are missing, "
            f"left over or of another shape, such as {min(wrong)}"
        )
    pipe.unet.load_state_dict(tensors)


def load_vae(pipe: DiffusionPipeline, source: str, revision: str | None = None) -> None:
    """Replace the VAE, which turns latents into images.

    Args:
        source: folder or hub id of an AutoencoderKL.

    Raises:
        UserError: there is none, or it is made for other latents.
    """
    option = "pipeline.model.vae"
    place = locate(source, f"{option}.source")
    problem, own = hub_problem(place), pipe.vae
    try:
        with complete(source):
            vae = AutoencoderKL.from_pretrained(
                place,
                revision=revision,
                dtype=own.dtype,
                use_safetensors=True,
                local_files_only=problem is not None,
            )
    except UserError:
        raise
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        check_gate(error, source)
        raise UserError(f"{option}: cannot load {source}: {why_missing(error, problem)}") from error
    for name in ("latent_channels", "block_out_channels"):
        have, want = vae.config[name], own.config[name]
        if (have if isinstance(have, int) else len(have)) != (want if isinstance(want, int) else len(want)):
            raise UserError(f"{option}: {source} is made for other latents ({name}={have}, not {want})")
    pipe.vae = vae


def load_lora(pipe: DiffusionPipeline, source: str, weight_name: str, revision: str | None = None) -> None:
    """Merge low-rank adapters into the models, which then cost and behave like any others.

    Raises:
        UserError: there is no such file, or not all of its adapters belong to these models.
    """
    if not hasattr(pipe, "load_lora_weights"):
        raise UserError(f"pipeline.model.lora: diffusers loads no adapters into a {type(pipe).__name__}")
    file = _find_weights("pipeline.model.lora", source, weight_name, revision)
    _refuse_dora(file, f"{source}: {weight_name}")
    options: dict[str, Any] = {"weight_name": file.name, "use_safetensors": True}
    mapping = {"unet_config": pipe.unet.config} if isinstance(pipe, StableDiffusionXLLoraLoaderMixin) else {}
    try:
        with _quiet("diffusers.loaders"):  # they warn of every model that a file has no adapters for
            tensors: dict[str, Tensor] = pipe.lora_state_dict(str(file.parent), **options, **mapping)[0]
            pipe.load_lora_weights(str(file.parent), **options, adapter_name=ADAPTER)
    except (OSError, ValueError, RuntimeError, LookupError, SafetensorError) as error:
        raise UserError(f"{source}: {weight_name} does not fit the models ({first_line(error)})") from error
    models = {name: getattr(pipe, name) for name in pipe._lora_loadable_modules if hasattr(pipe, name)}
    placed = {f"{name}.{tensor}" for name, model in models.items() for tensor in _adapters(model)}
    expected = _named(tensors, models)
    if left := expected - placed:
        raise UserError(
            f"{source}: {len(left)} of {len(expected)} tensors of {weight_name} fit nothing in this pipeline, such as "
            f"{min(left)}: it was made for another model"
        )
    changed = [name for name in models if any(tensor.startswith(f"{name}.") for tensor in placed)]
    if not changed:
        raise UserError(f"{source}: {weight_name} holds no adapters for a {type(pipe).__name__}")
    try:
        pipe.fuse_lora(components=changed, safe_fusing=True)
    except ValueError as error:
        raise UserError(f"{source}: {weight_name} makes weights that are not finite") from error
    pipe.unload_lora_weights()


def _refuse_dora(file: Path, what: str) -> None:
    """Raise a UserError for adapters with scales of their own, which diffusers drops with a warning."""
    try:
        with safe_open(file, "pt") as tensors:
            scaled = any("dora_scale" in name for name in tensors.keys())  # noqa: SIM118, it is no dict
    except (OSError, SafetensorError) as error:
        raise UserError(f"{what} cannot be read ({first_line(error)}): is it complete?") from error
    if scaled:
        raise UserError(f"{what} holds DoRA adapters, whose scales diffusers cannot read: give plain LoRA")


def _adapters(model: nn.Module) -> Iterator[str]:
    """Names of a model's adapter tensors, as in a file of them."""
    for name in model.state_dict():
        parts = name.split(".")
        if ADAPTER in parts:
            yield ".".join(part for part in parts if part != ADAPTER)


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


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """No warnings of a logger and those below it."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def upcast_vae(vae: AutoencoderKL) -> None:
    """Let a VAE decode in float32, whatever the dtype of the latents that it is given."""
    nn.Module.to(vae, torch.float32)  # diffusers' own warns of modules that are no concern here
    for part in (vae.post_quant_conv, vae.decoder):
        if isinstance(part, nn.Module):
            part.register_forward_pre_hook(lambda module, inputs: tuple(_as_float(each) for each in inputs))


def _as_float(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) else value


def _find_weights(option: str, source: str, weight_name: str, revision: str | None) -> Path:
    if not weight_name.endswith(".safetensors"):
        raise UserError(f"{option}.weight_name={weight_name} must be a .safetensors file")
    place = Path(locate(source, f"{option}.source"))
    if place.is_dir():
        if (place / weight_name).is_file():
            return place / weight_name
        raise UserError(f"{option}.weight_name: no file {weight_name} in {source}")
    problem = hub_problem(source)
    try:
        return Path(hf_hub_download(source, weight_name, revision=revision, local_files_only=problem is not None))
    except (OSError, ValueError) as error:
        check_gate(error, source)
        reason = why_missing(error, problem)
        raise UserError(f"{option}: cannot load {weight_name} of {source}: {reason}") from error
