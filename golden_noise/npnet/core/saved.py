"""Networks on disk, in every form: one file that describes itself, a diffusers folder, published weights."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from golden_noise.errors import UserError, first_line
from golden_noise.npnet.core import published
from golden_noise.weight_files import damage, read_tensors

IN_FOLDER = ("config.json", "diffusion_pytorch_model.safetensors")
CLASSES = ("NPNet", "LowFrequencyNPNet", "DenoiserNPNet")
# The one key of the metadata of a file that describes itself: `Saved.config` as JSON. Of several keys safetensors would
# change the order from one time to the next, and with it the file's bytes.
METADATA = "golden_noise"
# Options that can be chosen anew, since no weights depend on them.
FREE = ("fit", "long_prompt", "unit_variance", "norm_kept")


@dataclass(frozen=True)
class Saved:
    """A network as it is on disk.

    Attributes:
        source: where it is, for errors.
        config: `_class_name`, one of CLASSES, that class's options, and `_trained_for` if it is known.
        weights: by the names that the class gives them.
    """

    source: str
    config: dict[str, Any]
    weights: dict[str, Tensor]

    @property
    def class_name(self) -> str:
        return str(self.config["_class_name"])

    @property
    def options(self) -> dict[str, Any]:
        """The config without what is not an option of the class."""
        return {name: value for name, value in self.config.items() if not name.startswith("_")}

    @property
    def trained_for(self) -> dict[str, Any]:
        """`pipeline` (its name), `steps` and `guidance` of the training, as far as they are known."""
        known = self.config.get("_trained_for")
        return known if isinstance(known, dict) else {}


def read(path: Path, source: str | None = None, **options: Any) -> Saved:
    """What is in a file or folder, whatever its form.

    Args:
        path: of a file, of a folder with the files IN_FOLDER, or of one of these.
        source: what the user calls it, for errors.
        options: to replace saved ones of FREE, or those that published weights do not hold (`published.understand`).

    Raises:
        UserError: there is nothing, it is something else, damaged, or says otherwise than the options.
    """
    source = source or str(path)
    try:
        folder = path.parent if path.name in IN_FOLDER and (path.parent / IN_FOLDER[0]).is_file() else path
        if folder.is_dir():
            return _read_folder(folder, source, options)
        if path.is_file():
            return _read_file(path, source, options)
    except OSError as error:
        raise UserError(f"{source} cannot be read: {first_line(error)}") from error
    raise UserError(f"no file or folder {source}")


def check_options(config: Mapping[str, Any], options: Mapping[str, Any], source: str) -> None:
    """Refuses options that a network does not have, or that its weights decide otherwise."""
    known = {*config, *(FREE if config["_class_name"] in CLASSES else ())}
    for name, value in options.items():
        if name == "fit" and config["_class_name"] in CLASSES[1:]:
            raise UserError(f"fit={value}: the network in {source} takes any size: leave fit out")
        if name not in known:
            raise UserError(f"{name}={value}: the network in {source} does not have this option, leave it out")
        if name not in FREE and (have := config[name]) != value:
            raise UserError(f"{name}={value}: {source} itself says {name}={have}, leave {name} out")


def _read_folder(folder: Path, source: str, options: dict[str, Any]) -> Saved:
    for name in IN_FOLDER:
        fault = damage(folder / name) if (folder / name).is_file() else f"it has no {name}"
        if fault:
            raise UserError(f"no network in {source}: {fault}")
    config = _config((folder / IN_FOLDER[0]).read_bytes(), source)
    check_options(config, options, source)
    return Saved(source, config | options, read_tensors(folder / IN_FOLDER[1], source))


def _read_file(file: Path, source: str, options: dict[str, Any]) -> Saved:
    content = read_tensors(file, source)
    metadata = _metadata(file)
    if METADATA not in metadata:
        if file.name == IN_FOLDER[1]:
            raise UserError(f"no network in {source}: the folder of a network has a {IN_FOLDER[0]} beside it")
        if isinstance(content, dict) and "pytorch-lightning_version" in content:
            raise UserError(_whose_checkpoint(file, source))
        return Saved(source, *published.understand(content, file.stat().st_size, source, options))
    config = _config(metadata[METADATA], source)
    check_options(config, options, source)
    weights = published.our_weights(content, True) if published.is_published(content) else content
    return Saved(source, config | options, weights)


def _metadata(file: Path) -> dict[str, str]:
    if file.suffix.lower() != ".safetensors":
        return {}
    with safe_open(file, framework="np") as opened:
        return opened.metadata() or {}


def _config(text: str | bytes, source: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source} is damaged: its config is not JSON") from error
    if not isinstance(config, dict):
        raise UserError(f"{source} is damaged: its config is no JSON object")
    if (name := config.get("_class_name", CLASSES[0])) not in CLASSES:
        raise UserError(f"no NPNet in {source}: it holds a {name}")
    return {"_class_name": name, **config}


def _whose_checkpoint(file: Path, source: str) -> str:
    run = file.absolute().parents[1]
    if (run / "npnet/best/config.json").is_file():
        return f"{source} is what a training resumes from: give the folder of its run, {run}"
    return f"{source} is what a training resumes from: let it end, and give the folder of its run"
