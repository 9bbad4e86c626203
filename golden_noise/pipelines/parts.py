"""Parts that a config gives a pipeline instead of its own: a scheduler, a denoiser's weights, a VAE, adapters."""

import copy
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, FluxPipeline
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from golden_noise.errors import UserError, first_line
from golden_noise.hub import download, hub_problem, locate, why_missing
from golden_noise.pipelines.loading import check_files, check_floats, complete, find_file
from golden_noise.pipelines.single_file import is_file, load_vae_file


def set_scheduler(pipe: DiffusionPipeline, name: str, **arguments: Any) -> None:
    """Let a pipeline sample with another scheduler, at its own noise schedule but for the arguments given.

    Args:
        name: class of diffusers, such as "EulerDiscreteScheduler".
        arguments: of that class. All take `timestep_spacing`, as searches need it where the sampler itself has none.

    Raises:
        UserError: no such scheduler, or it has no such argument.
    """
    option = "pipeline.model.scheduler"
    scheduler: Any = getattr(diffusers, name, None)
    is_sampler = isinstance(scheduler, type) and issubclass(scheduler, diffusers.SchedulerMixin)
    if not (is_sampler and hasattr(scheduler, "step")):
        raise UserError(f"{option}.name={name} is not a scheduler of diffusers, such as EulerDiscreteScheduler")
    for argument in arguments:
        if argument not in (*signature(scheduler).parameters, "timestep_spacing"):
            raise UserError(f"{option}.{argument}: a {name} has no such argument")
    own = dict(pipe.scheduler.config)
    for default in own.pop("_use_default_values", []):  # defaults of one class are not those of another
        own.pop(default, None)
    try:
        pipe.scheduler = scheduler.from_config(own | arguments)
    except Exception as error:  # wrong arguments fail in any way
        raise UserError(f"{option}.name={name} cannot be used here: {first_line(error)}") from error


def check_scheduler(pipe: DiffusionPipeline, flow: bool, steps: int) -> None:
    """Check that a pipeline's scheduler can sample its model in so many steps.

    Args:
        flow: whether the model was trained by flow matching.
        steps: of the sampler.

    Raises:
        UserError: it cannot.
    """
    scheduler = pipe.scheduler
    said = f"pipeline.model.scheduler.name={type(scheduler).__name__} cannot"
    try:
        serves = _samples_flow(scheduler, isinstance(pipe, FluxPipeline)) if flow else _samples_diffusion(scheduler)
        with torch.random.fork_rng(devices=[]):  # some draw noise
            serves = serves and _reaches_an_image(copy.deepcopy(scheduler), steps)
    except UserError:
        raise
    except Exception as error:  # as above; nothing of ours runs here
        raise UserError(f"{said} be used here with pipeline.steps={steps}: {first_line(error)}") from error
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
    """Whether a scheduler goes from noise to an image along a diffusion's levels, given nothing but the prediction."""
    if not all(hasattr(scheduler, name) for name in ("init_noise_sigma", "scale_model_input", "alphas_cumprod")):
        return False
    needed = [p for p in signature(scheduler.step).parameters.values() if p.default is Parameter.empty]
    return len(needed) <= 3 and not scheduler.config.get("use_flow_sigmas")  # prediction, timestep and latents


def _reaches_an_image(scheduler: Any, steps: int) -> bool:
    """Whether a scheduler goes from noise to an image; tried with a model that predicts zeros.

    Raises:
        UserError: it gives numbers that are not finite.
        Exception: whatever the scheduler raises.
    """
    shift = {"mu": 1.0} if scheduler.config.get("use_dynamic_shifting") else {}  # which pipelines know
    scheduler.set_timesteps(steps, **shift)
    if len(scheduler.timesteps) > 1 and not scheduler.timesteps[0] > scheduler.timesteps[-1]:
        return False  # the inverse ones go from the image to noise
    latents = torch.ones(1, 4, 8, 8) * getattr(scheduler, "init_noise_sigma", 1)
    for timestep in scheduler.timesteps:
        if hasattr(scheduler, "scale_model_input"):  # not all of flow matching
            scheduler.scale_model_input(latents, timestep)
        latents = scheduler.step(torch.zeros_like(latents), timestep, latents).prev_sample
    if not latents.isfinite().all():
        raise UserError(
            f"pipeline.model.scheduler: a {type(scheduler).__name__} with these settings and pipeline.steps={steps} "
            "gives no finite numbers: check its betas and their end"
        )
    return True


def load_unet(
    pipe: DiffusionPipeline, source: str, weight_name: str | None = None, revision: str | None = None
) -> None:
    """Replace all weights of the denoiser.

    Raises:
        UserError: there is no such file, or it holds another model's weights.
    """
    if not hasattr(pipe, "unet"):
        raise UserError(f"pipeline.model.unet: the denoiser of a {type(pipe).__name__} is not a U-Net")
    file = find_weights("pipeline.model.unet", source, weight_name, revision)
    what = f"{source}: {weight_name}" if weight_name else source
    check_floats(file, what)
    tensors = load_file(file)
    own = {name: tensor.shape for name, tensor in pipe.unet.state_dict().items()}
    given = {name: tensor.shape for name, tensor in tensors.items()}
    if wrong := {name for name in own.keys() | given.keys() if own.get(name) != given.get(name)}:
        raise UserError(
            f"{what} does not fit the denoiser: {len(wrong)} of {len(own)} tensors are missing, "
            f"left over or of another shape, such as {min(wrong)}"
        )
    if broken := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise UserError(f"{what} is damaged: {broken[0]} is not finite")
    pipe.unet.load_state_dict(tensors)


def load_vae(pipe: DiffusionPipeline, source: str, revision: str | None = None) -> None:
    """Replace the VAE, which turns latents into images.

    Args:
        source: folder or hub id of an AutoencoderKL, or one file.

    Raises:
        UserError: there is none, or it is made for other latents.
    """
    option = "pipeline.model.vae"
    if is_file(source):
        pipe.vae = load_vae_file(pipe.vae, option, source, revision)
        return
    folder, own = locate(source, f"{option}.source"), pipe.vae
    if local := Path(folder).is_dir():
        check_files(folder, f"{option}: {source}")
    try:
        with complete(source):
            vae = AutoencoderKL.from_pretrained(
                folder,
                revision=revision,
                dtype=own.dtype,
                use_safetensors=True,
                local_files_only=bool(hub_problem(folder)),
            )
    except UserError:
        raise
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{option}: cannot load {source}: {why_missing(error, folder)}") from error
    cached = None if local else try_to_load_from_cache(folder, "config.json", revision=revision)
    if isinstance(cached, str):
        check_files(str(Path(cached).parent), f"{option}: {source}")
    for name in ("latent_channels", "block_out_channels"):
        have, want = vae.config[name], own.config[name]
        if (have if isinstance(have, int) else len(have)) != (want if isinstance(want, int) else len(want)):
            raise UserError(f"{option}: {source} is made for other latents ({name}={have}, not {want})")
    pipe.vae = vae


def upcast_vae(vae: AutoencoderKL) -> None:
    """Let a VAE decode in float32, whatever the dtype of the latents that it is given."""
    nn.Module.to(vae, torch.float32)  # diffusers' own warns of modules that do not matter here
    for part in (vae.post_quant_conv, vae.decoder):
        if isinstance(part, nn.Module):
            part.register_forward_pre_hook(
                lambda module, inputs: tuple(each.float() if isinstance(each, Tensor) else each for each in inputs)
            )


def find_weights(option: str, source: str, weight_name: str | None, revision: str | None) -> Path:
    """The file of weights in a folder or on the hub; without `weight_name`, what `source` itself names."""
    if weight_name is None:
        return find_file(f"{option}.source", source, revision)
    if not weight_name.endswith(".safetensors"):
        raise UserError(f"{option}.weight_name={weight_name} must be a .safetensors file")
    folder = Path(locate(source, f"{option}.source"))
    if not folder.is_dir():
        return download(source, weight_name, option, revision)
    if not (folder / weight_name).is_file():
        raise UserError(f"{option}.weight_name: no file {weight_name} in {source}")
    return folder / weight_name
