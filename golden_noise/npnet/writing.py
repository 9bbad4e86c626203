"""Networks to disk: as one file that describes itself, as a diffusers folder, or as the authors publish them."""

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from golden_noise.errors import UserError
from golden_noise.files import atomic_file
from golden_noise.npnet.core.published import NAMES, PUBLISHED, QKV, TO_QKV, TOKENS, Weights
from golden_noise.npnet.core.saved import IN_FOLDER, METADATA, Saved

AUTHORS, ONE_FILE = (".pth", ".pt"), ".safetensors"


def write(saved: Saved, target: str) -> None:
    """Writes a network.

    Args:
        target: ends in `.safetensors` for one file that describes itself. If the network is built as the published ones
            are, its weights have the community's names, so that programs which know these read it as well. `.pth` for
            the form of the authors. Anything else is a folder.

    Raises:
        UserError: the authors' form cannot hold this network, or the folder's name is that of a file.
    """
    path, config = Path(target), {"_class_name": saved.class_name, **saved.options}
    if saved.trained_for:
        config["_trained_for"] = saved.trained_for
    weights = {name: value.detach().cpu().clone().contiguous() for name, value in saved.weights.items()}
    if path.suffix.lower() in AUTHORS:
        if difference := _difference(saved):
            raise UserError(f"{target}: {difference}; a folder, or a name that ends in .safetensors, holds any network")
        _save(path, _nested(_published(weights)))
    elif path.suffix.lower() == ONE_FILE:
        content = weights if _difference(saved) else _published(weights)
        _save(path, safetensors.torch.save(content, {METADATA: json.dumps(config, sort_keys=True)}))
    elif path.is_file():
        raise UserError(f"{target} is a file: give a folder, or a name that ends in .pth or .safetensors")
    else:
        _save(path / IN_FOLDER[0], f"{json.dumps(config, indent=2, sort_keys=True)}\n".encode())
        _save(path / IN_FOLDER[1], safetensors.torch.save(weights, {"format": "pt"}))


def _save(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        if isinstance(content, bytes):
            file.write(content)
        else:
            torch.save(content, file)


def _difference(saved: Saved) -> str | None:
    """What keeps a network from being a published one; None if it is built as they are."""
    if saved.class_name != "NPNet":
        return f"a {saved.class_name} has no published form"
    for option, value in PUBLISHED.items():
        have = saved.config.get(option)
        if have != value and not (option == "backbone_args" and not have):
            return f"the published form needs {option}={value}, this NPNet has {option}={have}"
    if (tokens := saved.config["embeds_shape"][0]) != TOKENS:
        return f"the published form needs {TOKENS} tokens, this NPNet reads {tokens}"
    return None


def _published(ours: Weights) -> Weights:
    """The weights under the community's names.

    What the published network holds without using it is filled in, with zeros where nothing is normalised, so that its
    own code loads the file.
    """
    ours = dict(ours)
    qkv = torch.cat([ours.pop(name) for name in TO_QKV])
    theirs = {_their_name(name): value for name, value in ours.items()} | {QKV: qkv}
    features, k = len(ours["residual_branch.backbone.norm.weight"]), qkv.shape[1]
    theirs |= {
        "unet_embedding.swin.head.fc.weight": torch.zeros(1000, features),
        "unet_embedding.swin.head.fc.bias": torch.zeros(1000),
    }
    norm = torch.nn.BatchNorm2d(k).state_dict()
    return theirs | {f"unet_svd.bn.{name}": value for name, value in norm.items()}


def _their_name(name: str) -> str:
    theirs, ours = next((theirs, ours) for theirs, ours in NAMES.items() if name.startswith(ours))
    return theirs + name.removeprefix(ours)


def _nested(weights: Weights) -> dict[str, Any]:
    """The community's names as those of the authors."""
    nested: dict[str, Any] = {name: weights[name] for name in ("alpha", "beta")}
    for part in ("unet_embedding", "unet_svd", "text_embedding"):
        prefix = f"{part}."
        theirs = "embeeding" if part == "text_embedding" else part
        nested[theirs] = {n.removeprefix(prefix): value for n, value in weights.items() if n.startswith(prefix)}
    return nested
