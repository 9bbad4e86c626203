"""Loading diffusers pipelines with errors that say what to do."""

import logging
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import GatedRepoError
from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
from hydra.utils import get_method
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerBase

from golden_noise.errors import UserError
from golden_noise.weights import hub_problem, locate

OPTION = "pipeline.model.source"
TOO_LONG = "sequence-length-is-longer-than-the-specified-maximum"  # transformers' name for that warning
Kind = TypeVar("Kind", bound=DiffusionPipeline)


def pick_device(device: str) -> torch.device:
    """ "auto" is the first CUDA GPU, else Apple's, else the CPU; anything else is taken as given.

    Raises:
        UserError: there is no such device here.
    """
    try:
        return torch.empty(0, device=device_kind(device) if device == "auto" else device).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"device={device} cannot be used ({first_line(error)}): try device=auto or device=cpu"
        ) from error


def device_kind(device: str) -> str:
    """What kind of device a setting means here, such as cuda; nothing is started on it."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return device.partition(":")[0]


def hide_reading() -> None:
    """No progress bars for reading weights from the disk, a matter of seconds; those of downloads stay."""
    downloads = not are_progress_bars_disabled()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()  # switches the downloads' off, too
    if downloads:
        enable_progress_bars()


def first_line(error: Exception) -> str:
    """Why something failed, without the advice and traces that libraries append."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def why_missing(error: Exception, problem: str | None) -> str:
    """Why weights cannot be had; `problem` is what `hub_problem` said of them."""
    return f"{problem}, and it was not downloaded before" if problem else first_line(error)


def pick_dtype(dtype: str, device: torch.device, half: str) -> torch.dtype:
    """ "auto" is `half` on a GPU and float32 elsewhere.

    Raises:
        UserError: it is none that a pipeline can run in.
    """
    return getattr(torch, dtype_name(dtype, device.type, half))


def dtype_name(dtype: str, kind: str, half: str) -> str:
    """The name of what `pick_dtype` gives on a kind of device."""
    if dtype == "auto":
        dtype = half if kind == "cuda" else "float32"
    if dtype not in ("float16", "bfloat16", "float32"):
        raise UserError(f"pipeline.model.dtype={dtype} must be auto, float16, bfloat16 or float32")
    return dtype


def model_dtype(model: Mapping[str, Any], device: str) -> str:
    """The dtype that `pipeline.model` runs in, on `device` if it names none of its own.

    `auto` stays where the class does not say what it stands for.
    """
    dtype, kind = model.get("dtype", "auto"), device_kind(model.get("device") or device)
    half = getattr(getattr(get_method(model["_target_"]), "__self__", None), "half", None)
    return dtype if half is None else dtype_name(dtype, kind, half)


def load_diffusers(
    kind: type[Kind], source: str, dtype: torch.dtype, variant: str | None, revision: str | None = None, **parts: Any
) -> Kind:
    """Load a pipeline of a given class from a folder or the hub; `parts` replace what it has there.

    Raises:
        UserError: a folder that is no pipeline or one of another class, or a hub that gives nothing.
    """
    place = locate(source, OPTION)
    local = Path(place).is_dir()
    if local and not (Path(place) / "model_index.json").is_file():
        raise UserError(
            f"{source} is no diffusers pipeline (no model_index.json): give {OPTION} another folder or a hub id"
        )
    hide_reading()
    problem = hub_problem(place)
    cached = problem is not None
    try:
        # diffusers would load a pipeline of another class too and leave the parts it lacks empty.
        name = kind.load_config(place, revision=revision, local_files_only=cached)["_class_name"]
        if name == kind.__name__:
            options = {"dtype": dtype, "variant": variant, "revision": revision, "use_safetensors": True}
            return say_once(kind.from_pretrained(place, local_files_only=cached, **options, **parts))
    except (OSError, ValueError) as error:
        _check_gate(error, source)
        reason = why_missing(error, problem)
        raise UserError(f"cannot load {source}: {reason}; give {OPTION} another folder or hub id") from error
    raise UserError(f"{source} holds a {name}, but this config needs a {kind.__name__}: change {OPTION} or pipeline")


def _check_gate(error: BaseException | None, source: str) -> None:
    """Explain an error whose origin is a model that the hub gives only to those who accepted its licence.

    Raises:
        UserError: it is.
    """
    while error is not None:
        if isinstance(error, GatedRepoError):
            raise UserError(
                f"{source} is gated: accept its licence at https://huggingface.co/{source} and log in (hf auth login)"
            ) from error
        error = error.__cause__ or error.__context__


class Once(logging.Filter):
    """Lets every message of a logger pass once."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        new = message not in self.seen
        self.seen.add(message)
        return new


def say_once(pipe: Kind) -> Kind:
    """The pipeline, which then says once which words of a prompt are cut off, not for every tokenizer and method.

    The tokenizers, which it asks for the whole prompt first, no longer warn of errors that the cut prevents.
    """
    logger = logging.getLogger(type(pipe).__module__)
    if not any(isinstance(each, Once) for each in logger.filters):
        logger.addFilter(Once())
    for part in pipe.components.values():
        if isinstance(part, PreTrainedTokenizerBase):
            part.deprecation_warnings[TOO_LONG] = True  # as if it had warned already
    return pipe


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
    if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
        raise UserError(f"{option}.name={name} is no scheduler of diffusers, such as EulerDiscreteScheduler")
    for argument in arguments:
        if argument not in (*signature(kind).parameters, "timestep_spacing"):
            raise UserError(f"{option}.{argument}: a {name} has no such argument")
    own = dict(pipe.scheduler.config)
    for default in own.pop("_use_default_values", []):  # defaults of one class are not those of another
        own.pop(default, None)
    pipe.scheduler = getattr(diffusers, name).from_config(own | arguments)


def load_unet(pipe: DiffusionPipeline, source: str, weight_name: str, revision: str | None = None) -> None:
    """Replace all weights of the denoiser.

    Raises:
        UserError: there is no such file, or it holds another model's weights.
    """
    file = _find_weights("pipeline.model.unet", source, weight_name, revision)
    try:
        pipe.unet.load_state_dict(load_file(file))
    except (RuntimeError, SafetensorError) as error:
        raise UserError(f"{source}: {weight_name} does not fit the denoiser ({first_line(error)})") from error


def load_lora(pipe: DiffusionPipeline, source: str, weight_name: str, revision: str | None = None) -> None:
    """Merge low-rank adapters into the models, which then cost and behave like any others.

    Raises:
        UserError: there is no such file, or it holds no adapters for these models.
    """
    file = _find_weights("pipeline.model.lora", source, weight_name, revision)
    try:
        pipe.load_lora_weights(str(file.parent), weight_name=file.name, use_safetensors=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{source}: {weight_name} does not fit the models ({first_line(error)})") from error
    if not pipe.get_active_adapters():  # keys of another model are passed over without an error
        raise UserError(f"{source}: {weight_name} holds no adapters for the denoiser of {type(pipe).__name__}")
    pipe.fuse_lora()
    pipe.unload_lora_weights()


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
        _check_gate(error, source)
        reason = why_missing(error, problem)
        raise UserError(f"{option}: cannot load {weight_name} of {source}: {reason}") from error
