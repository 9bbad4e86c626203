"""Finding and reading the weights of metrics: on this machine, on the hub or behind a URL, and never as code."""

import pickle
import struct
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from golden_noise.errors import UserError, first_line
from golden_noise.hub import hide_reading, hub_problem, looks_local, why_missing

DTYPES = ("float32", "float16", "bfloat16")
DAMAGED = (RuntimeError, EOFError, pickle.UnpicklingError, struct.error, SafetensorError)  # in files of weights
Kind = TypeVar("Kind", bound=PreTrainedModel)


def pick_dtype(dtype: str) -> torch.dtype:
    """The dtype a metric's models run in; scores are float32 in any case.

    Raises:
        UserError: it is none of `DTYPES`.
    """
    if dtype not in DTYPES:
        raise UserError(f"metric.*.dtype={dtype} must be one of {', '.join(DTYPES)}")
    return getattr(torch, dtype)


def version_of(source: str, revision: str | None) -> str:
    """What a record calls the weights: their name and their revision on the hub."""
    return f"{Path(source).name}@{revision or 'main'}"


def load(kind: Any, source: str, **options: Any) -> Any:
    """`kind.from_pretrained` of a folder or hub id: a model, tokenizer, config or processor.

    Raises:
        UserError: it cannot be loaded from there, or a model whose weights are not all there.
    """
    hide_reading()
    problem = hub_problem(source)
    options["local_files_only"] = problem is not None
    try:
        if not issubclass(kind, PreTrainedModel):
            return kind.from_pretrained(source, **options)
        model, report = kind.from_pretrained(source, output_loading_info=True, **options)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot load the metric's weights {source}: {why_missing(error, problem)}") from error
    except DAMAGED as error:
        raise UserError(f"cannot load the metric's weights {source}: damaged, or more than plain tensors") from error
    _refuse_misfits(source, kind.__name__, {*report["missing_keys"]})  # transformers would make them up
    return model


def find_file(source: str, revision: str | None = None, sha256: str | None = None) -> Path:
    """A file of weights on this machine, fetched if need be.

    Args:
        source: path of a file, ORG/NAME/FILE on the hub, or an https URL.
        revision: commit or tag on the hub.
        sha256: checksum that a file from a URL must have, as a URL has no revisions.

    Raises:
        UserError: there is no such file, it cannot be fetched, or it has another checksum.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path
    problem = None
    try:
        if source.startswith("https://"):
            return _download(source, sha256)
        if not looks_local(source) and source.count("/") >= 2:
            problem = hub_problem(source)
            org, name, file = source.split("/", 2)
            cached = problem is not None
            return Path(hf_hub_download(f"{org}/{name}", file, revision=revision, local_files_only=cached))
    except (OSError, ValueError, RuntimeError) as error:
        reason = why_missing(error, problem)
        raise UserError(f"cannot fetch {source}: {reason}; give metric.*.weights a file on this machine") from error
    raise UserError(f"no file {path}: give metric.*.weights an existing file, ORG/NAME/FILE on the hub or a URL")


def _download(url: str, sha256: str | None) -> Path:
    """The file behind a URL, kept in torch's own cache, where only files with the right checksum arrive."""
    if sha256 is None:
        raise ValueError("a URL needs metric.*.sha256, the checksum of its file")
    path = Path(torch.hub.get_dir()) / "checkpoints" / f"{sha256[:16]}-{url.rsplit('/', 1)[-1]}"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=sha256, progress=False)
    return path


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a .safetensors file or a torch checkpoint, on the CPU; nothing in the file is executed.

    Raises:
        UserError: the file is damaged, or holds other things than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, ValueError, *DAMAGED) as error:
        raise UserError(f"cannot read {path} as plain tensors ({first_line(error)}): is it complete?") from error
    found = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f"{path} holds other things than tensors: convert it to .safetensors")
    return found


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors below a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def build(kind: type[Kind], config: PretrainedConfig, tensors: dict[str, Tensor], source: str, **options) -> Kind:
    """A transformers model in float32 that holds exactly these tensors.

    Raises:
        UserError: tensors are missing, left over, or of another shape.
    """
    hide_reading()
    try:
        model, report = kind.from_pretrained(
            None, config=config, state_dict=tensors, dtype=torch.float32, output_loading_info=True, **options
        )
    except (RuntimeError, ValueError) as error:  # another shape
        raise UserError(f"{source} holds no weights for this {kind.__name__}: {first_line(error)}") from error
    _refuse_misfits(source, kind.__name__, {*report["missing_keys"], *report["unexpected_keys"]})
    return model


def fill(module: nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Give a module exactly these tensors.

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
