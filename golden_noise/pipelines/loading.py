"""Loading diffusers pipelines with errors that say what to do."""

import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import DiffusionPipeline
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedTokenizerBase

from golden_noise.device import device_type, dtype_name
from golden_noise.errors import UserError, first_line
from golden_noise.hub import fetch_file, hide_reading, hub_problem, locate, why_missing
from golden_noise.weight_files import damage

OPTION = "pipeline.model.source"
TOO_LONG = "sequence-length-is-longer-than-the-specified-maximum"  # transformers' name for that warning
NO_VARIANT = "no such modeling files are available"  # what diffusers says of a variant that a source does not have
# What transformers and diffusers say, in a warning only, of weights that a file lacks.
REPORTED, MADE_UP = re.compile(r"^(\S.*?)\s*\|\s*MISSING", re.MULTILINE), re.compile(r"newly initialized: \[(.*)\]")
PREDICTORS = ("unet", "transformer", "vae")  # models of floating point numbers alone
COLOR = re.compile(r"\x1b\[[0-9;]*m")
Loaded = TypeVar("Loaded", bound=DiffusionPipeline)


def model_dtype(model: Mapping[str, Any], device: str) -> str:
    """The dtype that `pipeline.model` runs in, on `device` if it names none of its own.

    `auto` stays where the class does not say what it stands for.
    """
    dtype = model.get("dtype", "auto")
    from hydra.utils import get_method  # late: golden_latents must work without Hydra

    half = getattr(getattr(get_method(model["_target_"]), "__self__", None), "half", None)
    return dtype if half is None else dtype_name(dtype, device_type(model.get("device") or device), half)


def load_diffusers(
    pipe_class: type[Loaded],
    source: str,
    dtype: torch.dtype,
    variant: str | None,
    revision: str | None = None,
    **parts: Any,
) -> Loaded:
    """Load a pipeline of a given class from a folder or the hub; `parts` replace what it has there.

    Raises:
        UserError: a folder that is not a pipeline or one of another class, a hub that gives nothing, or models some of
            whose weights are missing.
    """
    folder = locate(source, OPTION)
    if Path(folder).is_dir():
        if not Path(folder, "model_index.json").is_file():
            raise UserError(
                f"{source} is not a diffusers pipeline (no model_index.json): give {OPTION} another folder or a hub id"
            )
        check_files(folder, source, PREDICTORS)
    hide_reading()
    cached_only = bool(hub_problem(folder))
    try:
        # diffusers would load a pipeline of another class too and leave the parts it lacks empty.
        name = pipe_class.load_config(folder, revision=revision, local_files_only=cached_only)["_class_name"]
        if name == pipe_class.__name__:
            options = {"dtype": dtype, "revision": revision, "use_safetensors": True, "local_files_only": cached_only}
            with complete(source):
                return say_once(_load_variant(pipe_class, folder, variant, **options, **parts))
    except UserError:
        raise
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = why_missing(error, folder)
        raise UserError(f"cannot load {source}: {reason}; give {OPTION} another folder or hub id") from error
    raise UserError(
        f"{source} holds a {name}, but this config needs a {pipe_class.__name__}: change {OPTION} or pipeline"
    )


def find_file(option: str, source: str, revision: str | None = None) -> Path:
    """The file of weights that a source names: a path, or ORG/NAME/FILE on the hub.

    Raises:
        UserError: there is none, or it is of a kind that may run code when it is read.
    """
    if "://" in source:
        raise UserError(
            f"{option}={source} is a URL: download the file, and give its path, or ORG/NAME/FILE on the hub"
        )
    if not source.endswith(".safetensors"):
        raise UserError(f"{option}={source} must be a .safetensors file: others can run code when they are read")
    return fetch_file(source, option, revision)


def check_files(path: str, source: str, parts: Sequence[str] = ("",)) -> None:
    """Check the files of models in a folder: the libraries make other errors of them, or quietly other weights.

    Args:
        source: what the user calls it.
        parts: subfolders whose weights must be floating point numbers, unless they are quantised.

    Raises:
        UserError: a file is damaged, or holds integers, which would be cast.
    """
    if fault := damage(path, weights=False):
        raise UserError(f"{source}: {fault}")
    for part in parts:
        config = Path(path, part, "config.json")
        if not config.is_file() or "quantization_config" in json.loads(config.read_bytes()):
            continue
        for file in sorted(config.parent.glob("*.safetensors")):
            if not damage(file):  # else it may be another variant's, or cannot be loaded
                check_floats(file, f"{source}: {file.relative_to(path)}")


def check_floats(file: Path, what: str, free: str | tuple[str, ...] = ()) -> None:
    """Check that all tensors of a safetensors file are floating point numbers: others would be cast without a word.

    Args:
        what: the file as the user knows it.
        free: names that end so may be anything.

    Raises:
        UserError: they are not, or the file cannot be read.
    """
    try:
        with safe_open(file, "pt") as tensors:
            dtypes = {name: tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118, no dict
    except (OSError, SafetensorError) as error:
        raise UserError(f"{what} cannot be read ({damage(file) or first_line(error)}): is it complete?") from error
    for name, dtype in dtypes.items():
        if not dtype.startswith(("F", "BF")) and not name.endswith(free):
            raise UserError(f"{what} is damaged: {name} holds {dtype} and no floating point numbers")


def _load_variant(pipe_class: type[Loaded], folder: str, variant: str | None, **options: Any) -> Loaded:
    """Load the files of a variant, or the plain ones of a source that has no others."""
    try:
        return pipe_class.from_pretrained(folder, variant=variant, **options)
    except ValueError as error:
        if variant is None or NO_VARIANT not in str(error):
            raise
    print(f"{folder} has no {variant} files: loading its plain ones", file=sys.stderr)
    return pipe_class.from_pretrained(folder, **options)


@contextmanager
def complete(source: str) -> Iterator[None]:
    """Refuse models, loaded in this context, that lack weights: the libraries would make up what is missing.

    Raises:
        UserError: weights are missing.
    """
    listener = BufferingHandler(capacity=sys.maxsize)
    listener.setLevel(logging.WARNING)
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(listener)
        logger.setLevel(min(logger.level or logging.WARNING, logging.WARNING))
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(listener)
            logger.setLevel(level)
    if missing := [name for record in listener.buffer for name in _missing(record.getMessage())]:
        raise UserError(f"{source} lacks {len(missing)} of its weights, such as {missing[0]}: is it complete?")


def _missing(message: str) -> list[str]:
    message = COLOR.sub("", message)
    names = [*REPORTED.findall(message), *(name for list_ in MADE_UP.findall(message) for name in list_.split(", "))]
    return [name.strip("'") for name in names if "pooler" not in name]  # which no pipeline here reads


_said: set[tuple[str, str]] = set()


def _first_time(record: logging.LogRecord) -> bool:
    """A filter that lets every message of a logger pass once."""
    message = record.name, record.getMessage()
    new = message not in _said
    _said.add(message)
    return new


def say_once(pipe: Loaded) -> Loaded:
    """The pipeline, which then says once which words of a prompt are cut off, not for every tokenizer and method.

    The tokenizers, which it calls with the whole prompt first, no longer warn of errors that the cut prevents.
    """
    logging.getLogger(type(pipe).__module__).addFilter(_first_time)
    for part in pipe.components.values():
        if isinstance(part, PreTrainedTokenizerBase):
            part.deprecation_warnings[TOO_LONG] = True  # as if it had warned already
    return pipe
