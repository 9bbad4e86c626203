"""Loading diffusers pipelines with errors that say what to do."""

from pathlib import Path
from typing import TypeVar

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging
from huggingface_hub.constants import HF_HUB_OFFLINE

from golden_noise.errors import UserError
from golden_noise.weights import locate

OPTION = "pipeline.model.source"
Kind = TypeVar("Kind", bound=DiffusionPipeline)


def pick_device(device: str) -> torch.device:
    """ "auto" is the first CUDA GPU, else Apple's, else the CPU; anything else is taken as given.

    Raises:
        UserError: there is no such device here.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"device={device} cannot be used ({first_line(error)}): try device=auto or device=cpu"
        ) from error


def first_line(error: Exception) -> str:
    """Why something failed, without the advice and traces that libraries append."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def load_diffusers(kind: type[Kind], source: str, dtype: torch.dtype, variant: str | None) -> Kind:
    """Load a pipeline of a given class from a folder or the hub.

    Raises:
        UserError: a folder that is no pipeline or one of another class, or a hub that gives nothing.
    """
    place = locate(source, OPTION)
    local = Path(place).is_dir()
    if local and not (Path(place) / "model_index.json").is_file():
        raise UserError(
            f"{source} is no diffusers pipeline (no model_index.json): give {OPTION} another folder or a hub id"
        )
    logging.disable_progress_bar()
    try:
        # diffusers would load a pipeline of another class too and leave the parts it lacks empty.
        name = kind.load_config(place)["_class_name"]
        if name == kind.__name__:
            return kind.from_pretrained(place, dtype=dtype, variant=variant, use_safetensors=True)
    except (OSError, ValueError) as error:
        offline = " (HF_HUB_OFFLINE is set)" if not local and HF_HUB_OFFLINE else ""
        raise UserError(
            f"cannot load {source}{offline}: {first_line(error)}; give {OPTION} another folder or hub id"
        ) from error
    raise UserError(f"{source} holds a {name}, but this config needs a {kind.__name__}: change {OPTION} or pipeline")
