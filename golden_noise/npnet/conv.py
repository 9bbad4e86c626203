"""The residual branch of the `unet` variant: convolutions behind the denoiser's own first one (arXiv 2411.09502)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from golden_noise.errors import UserError, first_line
from golden_noise.hub import download, locate

Pretrained = bool | str | Mapping[str, Any]

# Where diffusers keeps a denoiser, the smaller file first.
DENOISER_FILES = ("unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.safetensors")


class ConvBranch(nn.Module):
    """`g`: the denoiser's `conv_in` -> ReLU -> 7x7 conv -> BatchNorm -> 7x7 conv -> ReLU -> 7x7 conv.

    The last conv starts at zero, so that a new branch changes nothing.

    Args:
        channels: C of the noise.
        width: channels that the denoiser's `conv_in` gives.
        pretrained: folder or hub id of the diffusers pipeline whose `conv_in` is copied, or the arguments of
            `denoiser_conv_in`; False starts a random one.

    Raises:
        UserError: no such pipeline, or its denoiser's `conv_in` has another shape.
    """

    def __init__(self, channels: int, width: int, pretrained: Pretrained = False):
        super().__init__()
        self.conv_in = nn.Conv2d(channels, width, 3, padding=1)
        self.conv1 = nn.Conv2d(width, channels, 7, padding=3, bias=False)  # the norm would undo a bias
        self.norm = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 7, padding=3)
        self.conv3 = nn.Conv2d(channels, channels, 7, padding=3)
        for parameter in self.conv3.parameters():
            nn.init.zeros_(parameter)
        if pretrained is True:
            raise UserError("pretrained=true: backbone=conv copies a pipeline's conv_in, give its folder or hub id")
        if pretrained:
            pipeline = {"source": pretrained} if isinstance(pretrained, str) else pretrained
            weights = denoiser_conv_in(**pipeline)
            have, want = tuple(weights["weight"].shape), tuple(self.conv_in.weight.shape)
            if have != want:
                raise UserError(
                    f"backbone_args.width: the conv_in of {pipeline['source']} has shape {have}, this branch {want}"
                )
            self.conv_in.load_state_dict(weights)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Returns g(x), shaped as x."""
        hidden = self.norm(self.conv1(self.conv_in(x_BCHW).relu()))
        return self.conv3(self.conv2(hidden).relu())


def denoiser_conv_in(
    source: str, revision: str | None = None, unet: Mapping[str, Any] | None = None
) -> dict[str, Tensor]:
    """`weight` and `bias` of a denoiser's first convolution, without reading the rest of it.

    Args:
        source: folder or hub id of a diffusers pipeline.
        revision: of it on the hub.
        unet: where its distilled denoiser is, if it has one: `source`, `weight_name` and `revision` as in
            `Pipeline.load`.

    Raises:
        UserError: there is no UNet.
    """
    names: tuple[str, ...] = DENOISER_FILES
    if unet is not None:
        source, names, revision = unet["source"], (unet["weight_name"],), unet.get("revision")
    folder = locate(source, "pretrained")
    local, reason = Path(folder).is_dir(), ""
    for name in names:
        try:
            path = Path(folder, name) if local else download(folder, name, "pretrained", revision)
            with safe_open(path, "pt") as file:
                return {part: file.get_tensor(f"conv_in.{part}") for part in ("weight", "bias")}
        except FileNotFoundError:
            continue
        except (UserError, OSError, SafetensorError) as error:
            reason = f" ({first_line(error)})"
    raise UserError(f"pretrained: {source} has no {names[-1]}{reason}; give a pipeline with a UNet, or false")
