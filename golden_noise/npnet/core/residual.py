"""Residual branch: an image backbone reads the noise with the prompt injected (arXiv 2411.09502)."""

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from golden_noise.errors import UserError, first_line


class ResidualBranch(nn.Module):
    """`g`: 1x1 conv -> features of a timm model -> 1x1 conv -> nearest resize to the noise's size.

    The published network resizes before the last conv. That is the same function, since a 1x1 conv treats every pixel
    alike, but it resizes hundreds of channels instead of a few. The last conv starts at zero, so that a new branch
    changes nothing.

    Args:
        latent_shape: (C, H, W) of the noise.
        backbone: name of a timm model.
        backbone_args: what timm's constructor of that model takes, e.g. `img_size`, `patch_size`, `in_chans`.
        backbone_size: side of the square the noise is resized to for the backbone; None feeds it as it is.
        layout: `map` reads the features as the F maps of size h x w that they are. `rows` reads the h rows as
            channels and resizes (w, F) to the noise's size. That is a mistake of the published network, which
            fed channels-last features to a convolution; its weights need it.

    Raises:
        UserError: timm has no such model, it cannot read this noise, or unknown layout.
    """

    def __init__(
        self,
        latent_shape: Sequence[int],
        backbone: str,
        backbone_args: Mapping[str, Any],
        backbone_size: int | None,
        layout: Literal["map", "rows"] = "map",
    ):
        super().__init__()
        if layout not in ("map", "rows"):
            raise UserError(f"layout: must be map or rows, got '{layout}'")
        model = _timm_model(backbone, backbone_args)
        last, channels = model.feature_info[-1], latent_shape[0]
        rows = (backbone_size or latent_shape[1]) // last["reduction"]
        self.backbone_size, self.layout = backbone_size, layout
        self.conv_in = nn.Conv2d(channels, backbone_args.get("in_chans", 3), 1)
        self.backbone: Any = model
        self.conv_out = nn.Conv2d(last["num_chs"] if layout == "map" else rows, channels, 1)
        for parameter in self.conv_out.parameters():
            nn.init.zeros_(parameter)
        self._try_it(latent_shape, backbone)

    def _try_it(self, latent_shape: Sequence[int], backbone: str) -> None:
        """A model that cannot read the noise is noticed now, not in the first step of a training."""
        try:
            with torch.no_grad():
                self.eval()(torch.zeros(1, *latent_shape))
        except (AssertionError, AttributeError, RuntimeError, ValueError) as error:
            raise UserError(
                f"backbone: {backbone} with these backbone_args, backbone_size and layout cannot read noise of shape "
                f"{tuple(latent_shape)}: {first_line(error)}"
            ) from error
        self.train()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Returns g(x), shaped as x."""
        image = x_BCHW
        if self.backbone_size is not None:
            image = F.interpolate(image, size=(self.backbone_size, self.backbone_size), mode="nearest")
        # The last feature map as (B, F, h, w), whatever the model's own layout (tokens, channels last).
        (features,) = self.backbone.forward_intermediates(
            self.conv_in(image), indices=1, norm=True, intermediates_only=True
        )
        if self.layout == "rows":
            features = features.permute(0, 2, 3, 1)
        return F.interpolate(self.conv_out(features), size=x_BCHW.shape[-2:], mode="nearest")


def _timm_model(name: str, arguments: Mapping[str, Any]) -> Any:
    """The model without its classifier, whose parameters no gradient would reach (an error under DDP)."""
    try:
        with torch.device("cpu"):  # a network may be built of meta tensors, with which older torchvision fails to load
            import timm  # takes seconds, and only this branch needs it
    except ImportError as error:
        raise UserError(f"backbone: {name} needs timm: pip install timm") from error

    if not timm.is_model(name):
        raise UserError(f"backbone: timm has no model '{name}'; see timm.list_models()")
    # Arguments of timm's function and not of the model: one names a file, which older timm unpickles.
    if foreign := sorted(arguments.keys() & signature(timm.create_model).parameters.keys()):
        raise UserError(f"backbone_args: {foreign[0]} is not an argument of a model, leave it out")
    try:
        model: Any = timm.create_model(name, **arguments)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"backbone_args={dict(arguments)}: no {name} can be built ({first_line(error)})") from error
    if not hasattr(model, "prune_intermediate_layers"):
        raise UserError(f"backbone: timm {timm.__version__} gives no feature maps of {name}; timm 1.0.3 or newer may")
    model.prune_intermediate_layers(1, prune_head=True)
    return model
