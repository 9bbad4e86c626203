"""Models in one file, as people share fine-tuned ones: the weights of a whole pipeline, or of a VAE."""

import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from diffusers.loaders.single_file_utils import SingleFileComponentError, fetch_diffusers_config
from safetensors import safe_open
from torch import Tensor, nn

from golden_noise.errors import UserError, first_line
from golden_noise.hub import hide_reading, hub_problem, locate, quiet, why_missing
from golden_noise.pipelines.loading import (
    OPTION,
    Loaded,
    check_files,
    check_floats,
    find_file,
    load_diffusers,
    say_once,
)
from golden_noise.weight_files import WEIGHTS

CONFIG = "pipeline.model.config"
DESCRIPTION = ["*.json", "*/*.json", "*.txt", "*/*.txt", "*/*.model"]  # all of a pipeline but its weights
CASTS = "diffusers.models.modeling_utils"  # warns of every file's dtype: "should be kept in float32: []"
WHOLE = ("position_ids", "num_updates")  # tensors of whole numbers that training code stores


def load_pipeline(
    pipe_class: type[Loaded],
    source: str,
    dtype: torch.dtype,
    variant: str | None = None,
    revision: str | None = None,
    config: str | None = None,
    **parts: Any,
) -> Loaded:
    """Load a pipeline of a given class from one file, or as `load_diffusers` does from a folder or the hub.

    Raises:
        UserError: see `load_diffusers` and `load_file`; or a `config` without a file.
    """
    if is_file(source):
        return load_file(pipe_class, source, dtype, revision, config, **parts)
    if config is not None:
        raise UserError(f"{CONFIG}={config} describes a single file, but {OPTION}={source} is none: leave it at null")
    return load_diffusers(pipe_class, source, dtype, variant, revision, **parts)


def is_file(source: str) -> bool:
    """Whether a source names one file of weights, here or on the hub, and not a folder."""
    return Path(source).suffix.lower() in WEIGHTS and not Path(source).expanduser().is_dir()


def load_file(
    pipe_class: type[Loaded], source: str, dtype: torch.dtype, revision: str | None, config: str | None, **parts: Any
) -> Loaded:
    """Load a pipeline from one file in the layout of the original code, such as ComfyUI's and A1111's.

    The file holds weights alone. What describes the models, and the tokenizers, come from `config`.

    Args:
        source: a path, or ORG/NAME/FILE on the hub.
        config: folder or hub id of a diffusers pipeline of the same family. None: the model that, by the file's
            tensors, diffusers takes it to be tuned from, on the hub or in the cache of downloads.
        parts: replace what the file has.

    Raises:
        UserError: no such file, one with other models or not all of them, or a config that is not there.
    """
    file = find_file(OPTION, source, revision)
    check_floats(file, source, free=WHOLE)
    shapes = _shapes(file)
    folder = _described(config or fetch_diffusers_config(shapes)["pretrained_model_name_or_path"], source)
    _check_description(folder, pipe_class, source)
    hide_reading()
    try:
        with quiet(CASTS):
            pipe = pipe_class.from_single_file(str(file), config=folder, dtype=dtype, local_files_only=True, **parts)
    except (SingleFileComponentError, NotImplementedError) as error:  # a model, or the value of one of its weights
        missing = first_line(error) if isinstance(error, SingleFileComponentError) else "some weights have no values"
        raise UserError(
            f"{source} does not hold all of a {pipe_class.__name__} ({missing}): is it complete?"
        ) from error
    except Exception as error:  # diffusers' conversion fails in any way on files of other models
        raise UserError(
            f"{source} cannot be read as a {pipe_class.__name__} ({first_line(error)}): are it, {CONFIG} and pipeline "
            "of one family?"
        ) from error
    models = {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}
    check_complete(source, models)
    _set_prediction(pipe, shapes)
    return say_once(pipe)


def load_vae_file(own: AutoencoderKL, option: str, source: str, revision: str | None) -> AutoencoderKL:
    """A VAE of the layers of `own` from one file, in the layout of diffusers or of the original code.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    file = find_file(f"{option}.source", source, revision)
    check_floats(file, f"{option}: {source}", free=WHOLE)
    with tempfile.TemporaryDirectory() as folder:
        own.save_config(folder)
        try:
            with quiet(CASTS):
                vae = AutoencoderKL.from_single_file(str(file), config=folder, dtype=own.dtype, local_files_only=True)
        except Exception as error:  # as above
            raise UserError(
                f"{option}: {source} is no VAE like the pipeline's own ({first_line(error)}): give a folder or hub id"
            ) from error
    check_complete(f"{option}: {source}", {"vae": vae})
    return vae


def check_complete(source: str, models: Mapping[str, nn.Module]) -> None:
    """Refuse models some of whose weights a file did not have: these have no values.

    Raises:
        UserError: weights are missing.
    """
    missing = [f"{part}.{name}" for part, model in models.items() for name, x in model.named_parameters() if x.is_meta]
    if missing:
        raise UserError(f"{source} lacks {len(missing)} of its weights, such as {missing[0]}: is it complete?")


def _shapes(file: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, without their values."""
    with safe_open(file, "pt") as tensors:
        return {
            name: torch.empty(tensors.get_slice(name).get_shape(), device="meta")
            for name in tensors.keys()  # noqa: SIM118, no dict
        }


def _described(config: str, source: str) -> str:
    """The folder of a pipeline's configuration and tokenizers."""
    folder = locate(config, CONFIG)
    if Path(folder).is_dir():
        return folder
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(folder, allow_patterns=DESCRIPTION, local_files_only=bool(hub_problem(folder)))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{source} needs the configuration and tokenizers of {config} ({why_missing(error, folder)}): give "
            f"{CONFIG} the folder of a diffusers pipeline of its family, or run once with network"
        ) from error


def _check_description(folder: str, pipe_class: type[DiffusionPipeline], source: str) -> None:
    """Check that a folder describes a pipeline of the class."""
    if not Path(folder, "model_index.json").is_file():
        raise UserError(f"{folder} describes no diffusers pipeline (no model_index.json): give {CONFIG} another folder")
    check_files(folder, folder)
    index = json.loads(Path(folder, "model_index.json").read_bytes())
    if (name := index.get("_class_name")) != pipe_class.__name__:
        raise UserError(
            f"{source} goes with a {name} by {folder}, but this config needs a {pipe_class.__name__}: change "
            f"pipeline or {CONFIG}"
        )


def _set_prediction(pipe: DiffusionPipeline, names: Iterable[str]) -> None:
    """Let the sampler follow the marks that files of models which predict the velocity hold, as ComfyUI does."""
    if "v_pred" in names:
        changes = {"prediction_type": "v_prediction"} | ({"rescale_betas_zero_snr": True} if "ztsnr" in names else {})
        pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, **changes)
