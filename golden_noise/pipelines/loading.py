"""Loading diffusers pipelines with errors that say what to do."""

import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import DiffusionPipeline
from huggingface_hub.errors import GatedRepoError
from hydra.utils import get_method
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedTokenizerBase

from golden_noise.device import device_kind, dtype_name
from golden_noise.errors import UserError, first_line
from golden_noise.hub import damage, hide_reading, hub_problem, locate, why_missing

OPTION = "pipeline.model.source"
TOO_LONG = "sequence-length-is-longer-than-the-specified-maximum"  # transformers' name for that warning
NO_VARIANT = "no such modeling files are available"  # what diffusers says of a variant that a source does not have
# What transformers and diffusers say, in a warning only, of weights that a file lacks.
REPORTED, MADE_UP = re.compile(r"^(\S.*?)\s*\|\s*MISSING", re.MULTILINE), re.compile(r"newly initialized: \[(.*)\]")
PREDICTORS = ("unet", "transformer", "vae")  # models of floating point numbers alone
COLOR = re.compile(r"\x1b\[[0-9;]*m")
Kind = TypeVar("Kind", bound=DiffusionPipeline)


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
        UserError: a folder that is no pipeline or one of another class, a hub that gives nothing, or models some of
            whose weights are missing.
    """
    place = locate(source, OPTION)
    local = Path(place).is_dir()
    if local and not (Path(place) / "model_index.json").is_file():
        raise UserError(
            f"{source} is no diffusers pipeline (no model_index.json): give {OPTION} another folder or a hub id"
        )
    if local:
        check_files(place, source, PREDICTORS)
    hide_reading()
    problem = hub_problem(place)
    cached = problem is not None
    try:
        # diffusers would load a pipeline of another class too and leave the parts it lacks empty.
        name = kind.load_config(place, revision=revision, local_files_only=cached)["_class_name"]
        if name == kind.__name__:
            options = {"dtype": dtype, "revision": revision, "use_safetensors": True, "local_files_only": cached}
            with complete(source):
                return say_once(_load_variant(kind, place, variant, **options, **parts))
    except UserError:
        raise
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = why_unloadable(error, source, place, problem)
        raise UserError(f"cannot load {source}: {reason}; give {OPTION} another folder or hub id") from error
    raise UserError(f"{source} holds a {name}, but this config needs a {kind.__name__}: change {OPTION} or pipeline")


def check_files(place: str, source: str, parts: Sequence[str] = ("",)) -> None:
    """Check the files of models in a folder: the libraries make other errors of them, or quietly other weights.

    Args:
        source: what the user calls it.
        parts: subfolders whose weights must be floating point numbers, unless they are quantised.

    Raises:
        UserError: a file is damaged, or holds integers, which would be cast.
    """
    if fault := damage(place, weights=False):
        raise UserError(f"{source}: {fault}")
    for part in parts:
        folder = Path(place) / part
        config = folder / "config.json"
        if not config.is_file() or "quantization_config" in json.loads(config.read_bytes()):
            continue
        for file in sorted(folder.glob("*.safetensors")):
            if damage(file):
                continue  # it may be another variant's, and else cannot be loaded
            check_floats(file, f"{source}: {file.relative_to(place)}")


def check_floats(file: Path, what: str, free: str = "") -> None:
    """Check that all tensors of a safetensors file are floating point numbers: others would be cast without a word.

    Args:
        what: the file as the user knows it.
        free: names that end so may be anything.

    Raises:
        UserError: they are not, or the file cannot be read.
    """
    try:
        with safe_open(file, "pt") as tensors:
            kinds = {name: tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118, no dict
    except (OSError, SafetensorError) as error:
        raise UserError(f"{what} cannot be read ({damage(file) or first_line(error)}): is it complete?") from error
    for name, kind in kinds.items():
        if not kind.startswith(("F", "BF")) and not (free and name.endswith(free)):
            raise UserError(f"{what} is damaged: {name} holds {kind} and no floating point numbers")


def _load_variant(kind: type[Kind], place: str, variant: str | None, **options: Any) -> Kind:
    """Load the files of a variant, or the plain ones of a source that has no others."""
    try:
        return kind.from_pretrained(place, variant=variant, **options)
    except ValueError as error:
        if variant is None or NO_VARIANT not in str(error):
            raise
    print(f"{place} has no {variant} files: loading its plain ones", file=sys.stderr)
    return kind.from_pretrained(place, **options)


@contextmanager
def complete(source: str) -> Iterator[None]:
    """Models that are loaded in this context have all their weights: the libraries would make up what is missing.

    Raises:
        UserError: they have not.
    """
    said: list[str] = []
    listener = logging.Handler(logging.WARNING)
    listener.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
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
    if missing := [name for message in said for name in _missing(COLOR.sub("", message))]:
        raise UserError(f"{source} lacks {len(missing)} of its weights, such as {missing[0]}: is it complete?")


def _missing(message: str) -> list[str]:
    names = [*REPORTED.findall(message), *(name for list_ in MADE_UP.findall(message) for name in list_.split(", "))]
    return [name.strip("'") for name in names if "pooler" not in name]  # which no pipeline here reads


def why_unloadable(error: Exception, source: str, place: str, problem: str | None) -> str:
    """Why models cannot be loaded from a folder or the hub.

    Args:
        source: what the user calls it.
        place: that folder or hub id.
        problem: what `hub_problem` said of it.

    Raises:
        UserError: the hub gives them only to those who accepted their licence.
    """
    _check_gate(error, source)
    return (damage(place) if Path(place).is_dir() else None) or why_missing(error, problem)


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
