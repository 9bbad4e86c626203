"""NPNets in ComfyUI's model folders and on its devices."""

import contextlib
import logging
import os
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy import model_management
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from .adapters import DenoiserNPNet
from .core.errors import UserError
from .core.load import Adapters, load
from .core.saved import IN_FOLDER
from .families import check_fit, described
from .settings import Settings

log = logging.getLogger("golden-noise")

KIND, FOLDERS = "npnet", ("npnet", "npnets")  # the second is where another pack keeps the same files
EXTENSIONS = {".safetensors", ".pth", ".pt"}


class NPNet:
    """A network that ComfyUI moves to its device and back as it moves its own models."""

    def __init__(self, network: Any, name: str):
        self.network, self.name = network, name
        devices = model_management.get_torch_device(), model_management.unet_offload_device()
        self.patcher = ModelPatcher(_Holder(network), *devices)

    def move(self, noise_BCHW: Tensor, conds: list[dict[str, Any]], model: Any, settings: Settings) -> Tensor:
        """Golden noise minus noise, the mean over the prompts.

        Raises:
            UserError: it was made for other shapes.
        """
        for cond in conds:
            check_fit(self.name, self.network, noise_BCHW, cond["cross_attn"])
        model_management.load_models_gpu([self.patcher], force_full_load=True)
        device = next(self.network.parameters()).device  # with --novram it stays on the CPU
        self.network.fit, self.network.long_prompt = settings.other_sizes, settings.long_prompt
        noise = noise_BCHW.to(device, torch.float32)
        golden = [self.network(noise, _as_batch(cond["cross_attn"], len(noise)).to(noise)) for cond in conds]
        return (torch.stack(golden).mean(dim=0) - noise).to(noise_BCHW.device)


class _Holder(nn.Module):
    """ComfyUI sets attributes of the module that it moves, such as `device`; a network may have its own."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network


def _as_batch(embeds_BLD: Tensor, count: int) -> Tensor:
    """As many prompts as noises; fewer are repeated, as ComfyUI does it."""
    return embeds_BLD[torch.arange(count) % len(embeds_BLD)]


def register_folders() -> None:
    """Tells ComfyUI where NPNets are: its models folder, and what extra_model_paths.yaml adds under `npnet`."""
    for folder in FOLDERS:
        folder_paths.add_model_folder_path(KIND, os.path.join(folder_paths.models_dir, folder))
    with contextlib.suppress(OSError):  # read-only, or a link to a drive that is not there: the nodes stay usable
        os.makedirs(os.path.join(folder_paths.models_dir, FOLDERS[0]), exist_ok=True)
    paths, _ = folder_paths.folder_names_and_paths[KIND]
    folder_paths.folder_names_and_paths[KIND] = (paths, EXTENSIONS)


def names() -> list[str]:
    """What there is to load: files, and folders that golden_noise wrote."""
    listed = folder_paths.get_filename_list(KIND)
    return sorted({_shown(name) for name in listed if _found(name)})  # ComfyUI lists links that lead nowhere, too


def load_npnet(name: str) -> NPNet | DenoiserNPNet:
    """Loads what `names` lists.

    Raises:
        UserError: it is gone, or no NPNet.
    """
    try:
        loaded = load(_locate(name))
    except UserError as error:  # ComfyUI's log cannot write every name that a disk can hold
        raise UserError(str(error).encode(errors="replace").decode()) from error
    log.info("NPNet %s: %s", name, described(loaded))
    return DenoiserNPNet(loaded, name) if isinstance(loaded, Adapters) else NPNet(loaded, name)


def fingerprint(name: str) -> str:
    """Another one if the file has changed."""
    path = _locate(name)
    facts = [file.stat() for file in ([path / part for part in IN_FOLDER] if path.is_dir() else [path])]
    # Copies, archives and links can bring another file of the same size and mtime.
    return " ".join(f"{fact.st_mtime_ns}:{fact.st_ctime_ns}:{fact.st_ino}:{fact.st_size}" for fact in facts)


def _shown(file: str) -> str:
    """A folder's name instead of that of the file of weights in it."""
    folder = os.path.dirname(file)
    return folder if folder and _locate(file).is_dir() else file


def _locate(name: str) -> Path:
    """The file, or the folder of a network."""
    found = _found(name) or _found(os.path.join(name, IN_FOLDER[1]))
    if found is None:
        raise UserError(f"{name} is not in models/{KIND}: put it there, or refresh the list (R) and choose another")
    file = Path(found)
    return file.parent if file.name == IN_FOLDER[1] and file.with_name(IN_FOLDER[0]).is_file() else file


def _found(file: str) -> str | None:
    path: str | None = folder_paths.get_full_path(KIND, file)
    return path
