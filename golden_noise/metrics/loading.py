"""Finding and reading the weights of metrics: on this machine, on the hub or behind a URL, and never as code."""

import re
import struct
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from golden_noise import hub, weight_files
from golden_noise.device import DTYPES
from golden_noise.errors import UserError, first_line

DAMAGED = (RuntimeError, EOFError, UnpicklingError, struct.error, SafetensorError)  # errors of files of weights
Model = TypeVar("Model", bound=PreTrainedModel)


def pick_dtype(dtype: str) -> torch.dtype:
    """The dtype a metric's models run in; scores are float32 in any case.

    Raises:
        UserError: it is not one of `DTYPES`.
    """
    if dtype not in DTYPES:
        raise UserError(f"metric.*.dtype={dtype} must be one of {', '.join(DTYPES)}")
    return getattr(torch, dtype)


def version_of(source: str, revision: str | None) -> str:
    """What a record calls the weights: their name and their revision on the hub."""
    return f"{Path(source).name}@{revision or 'main'}"


def load(part_class: Any, source: str, revision: str | None = None, **options: Any) -> Any:
    """`from_pretrained` of a transformers class: a model, tokenizer, config or processor.

    Args:
        source: folder or hub id.

    Raises:
        UserError: it cannot be loaded from there, or a model lacks weights.
    """
    folder = hub.locate(source, "the metric")
    options |= {"revision": revision, "local_files_only": bool(hub.hub_problem(folder))}
    hub.hide_reading()
    try:
        if not issubclass(part_class, PreTrainedModel):
            return part_class.from_pretrained(folder, **options)
        model, report = part_class.from_pretrained(folder, output_loading_info=True, **options)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot load the metric's weights {source}: {hub.why_missing(error, folder)}") from error
    except DAMAGED as error:
        raise UserError(f"cannot load the metric's weights {source}: damaged, or more than plain tensors") from error
    _refuse_misfits(source, part_class.__name__, {*report["missing_keys"]})  # transformers would make them up
    return model


def find_file(source: str, revision: str | None = None, sha256: str | None = None) -> Path:
    """A file of weights on this machine, downloaded if need be.

    Args:
        source: path of a file, ORG/NAME/FILE on the hub, or an https URL.
        revision: commit or tag on the hub.
        sha256: checksum that a file from a URL must have, as a URL has no revisions.

    Raises:
        UserError: there is no such file, it cannot be downloaded, or it has another checksum.
    """
    if not source.startswith("https://"):
        return hub.fetch_file(source, "metric.*.weights", revision)
    if sha256 is None:
        raise UserError(f"{source} needs metric.*.sha256, the checksum of its file")
    try:
        return _download(source, sha256)
    except (OSError, ValueError, RuntimeError) as error:
        reason = first_line(error)
        raise UserError(f"cannot download {source}: {reason}; give metric.*.weights a file on this machine") from error


def _download(url: str, sha256: str) -> Path:
    """The file behind a URL, kept in torch's own cache, where only files with the right checksum arrive."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / f"{sha256[:16]}-{url.rsplit('/', 1)[-1]}"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=sha256, progress=False)
    return path


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a .safetensors file or a torch checkpoint, on the CPU; nothing in the file is executed.

    Raises:
        UserError: the file is damaged, or holds other objects than tensors.
    """
    content = weight_files.read_tensors(path, str(path))
    tensors = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise UserError(f"{path} holds other things than tensors: convert it to .safetensors")
    return tensors


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors below a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def rename(name: str, rules: Sequence[tuple[str, str]]) -> str:
    """A name after replacements of regular expressions, one after the other."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def build(
    model_class: type[Model], config: PretrainedConfig, tensors: dict[str, Tensor], source: str, **options: Any
) -> Model:
    """A transformers model in float32 that holds exactly these tensors.

    Raises:
        UserError: tensors are missing, left over, or of another shape.
    """
    hub.hide_reading()
    try:
        model, report = model_class.from_pretrained(
            None, config=config, state_dict=tensors, dtype=torch.float32, output_loading_info=True, **options
        )
    except (RuntimeError, ValueError) as error:  # another shape
        reason = first_line(error)
        raise UserError(f"{source} holds no weights for this {model_class.__name__}: {reason}") from error
    _refuse_misfits(source, model_class.__name__, {*report["missing_keys"], *report["unexpected_keys"]})
    return model


def fill(module: nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Load exactly these tensors into a module.

    Raises:
        UserError: tensors are missing, left over, or of another shape.
    """
    expected = module.state_dict()
    wrong = {name for name in tensors.keys() & expected.keys() if tensors[name].shape != expected[name].shape}
    _refuse_misfits(source, type(module).__name__, wrong | (tensors.keys() ^ expected.keys()))
    module.load_state_dict(tensors)


def _refuse_misfits(source: str, name: str, wrong: set[str]) -> None:
    if wrong:
        raise UserError(f"{source} holds no weights for this {name}: {len(wrong)} do not fit, such as {min(wrong)}")
