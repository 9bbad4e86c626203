"""What the residual branch of a new NPNet starts from: a denoiser's first convolution, or timm's weights."""

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from golden_noise.errors import UserError, first_line
from golden_noise.hub import download, locate

Pretrained = bool | str | Mapping[str, Any]

# Where diffusers keeps a denoiser, the smaller file first.
ORIGINAL_CONV_IN = "model.diffusion_model.input_blocks.0.0"  # in files of whole pipelines
DENOISER_FILES = ("unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.safetensors")


def start_from(pretrained: Pretrained, branch: Any, backbone: str, arguments: Mapping[str, Any]) -> None:
    """Replaces the random weights of a branch.

    Args:
        pretrained: for `conv` the folder or hub id of the diffusers pipeline whose `conv_in` is copied, or the
            arguments of `denoiser_conv_in`. For a timm model True, which downloads timm's weights, or a file of them.
        branch: a `ConvBranch` or `ResidualBranch`.
        backbone: `conv`, or the name of the timm model.
        arguments: of that model.

    Raises:
        UserError: there are no such weights, or they have other shapes.
    """
    if backbone == "conv":
        _copy_conv_in(branch.conv_in, pretrained)
    elif pretrained is True:
        _download(branch.backbone, backbone, arguments)
    elif isinstance(pretrained, str):
        _load_file(branch.backbone, backbone, pretrained)
    else:
        raise UserError("pretrained: a timm backbone needs true, false or a file of weights")


def _copy_conv_in(conv_in: nn.Conv2d, pretrained: Pretrained) -> None:
    if isinstance(pretrained, bool):
        raise UserError("pretrained=true: backbone=conv copies a pipeline's conv_in, give its folder or hub id")
    pipeline = {"source": pretrained} if isinstance(pretrained, str) else pretrained
    weights = denoiser_conv_in(**pipeline)
    have, want = tuple(weights["weight"].shape), tuple(conv_in.weight.shape)
    if have != want:
        raise UserError(
            f"backbone_args.width: the conv_in of {pipeline['source']} has shape {have}, this branch {want}"
        )
    conv_in.load_state_dict(weights)


def denoiser_conv_in(
    source: str, revision: str | None = None, unet: Mapping[str, Any] | None = None
) -> dict[str, Tensor]:
    """`weight` and `bias` of a denoiser's first convolution, without reading the rest of it.

    Args:
        source: folder or hub id of a diffusers pipeline, or a pipeline in one file.
        revision: of it on the hub.
        unet: where its distilled denoiser is, if it has one: `source`, `weight_name` and `revision` as in
            `Pipeline.load`.

    Raises:
        UserError: there is no UNet.
    """
    from golden_noise.pipelines.loading import find_file  # these take seconds
    from golden_noise.pipelines.single_file import is_file

    names: tuple[str, ...] = DENOISER_FILES
    if unet is not None:
        source, names, revision = unet["source"], (unet.get("weight_name") or "",), unet.get("revision")
    if is_file(source):
        path = find_file("pretrained", source, revision)
        try:
            return _read_conv_in(path)
        except (OSError, SafetensorError) as error:
            raise UserError(f"pretrained: {source} has no UNet ({first_line(error)}); give false") from error
    folder = locate(source, "pretrained")
    local, reason = Path(folder).is_dir(), ""
    for name in names:
        try:
            path = Path(folder, name) if local else download(folder, name, "pretrained", revision)
            return _read_conv_in(path)
        except FileNotFoundError:
            continue
        except (UserError, OSError, SafetensorError) as error:
            reason = f" ({first_line(error)})"
    raise UserError(f"pretrained: {source} has no {names[-1]}{reason}; give a pipeline with a UNet, or false")


def _read_conv_in(path: Path) -> dict[str, Tensor]:
    with safe_open(path, "pt") as file:
        prefix = ORIGINAL_CONV_IN if f"{ORIGINAL_CONV_IN}.weight" in file.keys() else "conv_in"  # noqa: SIM118, no dict
        return {part: file.get_tensor(f"{prefix}.{part}") for part in ("weight", "bias")}


def _download(model: Any, name: str, arguments: Mapping[str, Any]) -> None:
    import timm  # takes seconds

    try:
        trained: Any = timm.create_model(name, pretrained=True, **arguments)
    except (OSError, RuntimeError) as error:  # of the network, or of weights that do not fit the arguments
        raise UserError(f"pretrained: cannot load timm's weights of {name} ({first_line(error)})") from error
    trained.prune_intermediate_layers(1, prune_head=True)
    model.load_state_dict(trained.state_dict())


def _load_file(model: Any, name: str, file: str) -> None:
    from timm.models import load_checkpoint

    try:
        missing = load_checkpoint(model, file, strict=False).missing_keys  # the file may hold a classifier
    except (OSError, RuntimeError, UnpicklingError) as error:
        raise UserError(f"pretrained: {file} holds no weights of timm's {name}, or there is no such file") from error
    if missing:
        raise UserError(f"pretrained: {file} holds no weights of timm's {name}: it lacks {missing[0]}")
