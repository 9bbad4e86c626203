"""Residual branch: an image backbone reads the noise with the prompt injected (arXiv 2411.09502)."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from golden_noise.errors import UserError


class ResidualBranch(nn.Module):
    """`g`: 1x1 conv -> features of a timm model -> nearest resize to the noise's size -> 1x1 conv.

    The last conv starts at zero, so that a new branch changes nothing.

    Args:
        channels: C of the noise.
        backbone: name of a timm model.
        backbone_args: what timm's constructor of that model takes, e.g. `img_size`, `patch_size`, `in_chans`.
        backbone_size: side of the square the noise is resized to for the backbone; None feeds it as it is.
        pretrained: True downloads timm's weights for the backbone.

    Raises:
        UserError: timm has no such model.
    """

    def __init__(
        self,
        channels: int,
        backbone: str,
        backbone_args: Mapping[str, Any],
        backbone_size: int | None,
        pretrained: bool,
    ):
        import timm  # takes seconds, and only this branch needs it

        super().__init__()
        if not timm.is_model(backbone):
            raise UserError(f"backbone: timm has no model '{backbone}'; see timm.list_models()")
        model: Any = timm.create_model(backbone, pretrained=pretrained, **backbone_args)
        # Without the classifier, whose parameters no gradient would reach (an error under DDP).
        model.prune_intermediate_layers(1, prune_head=True)
        self.backbone_size = backbone_size
        self.conv_in = nn.Conv2d(channels, backbone_args.get("in_chans", 3), 1)
        self.backbone: Any = model
        self.conv_out = nn.Conv2d(model.feature_info[-1]["num_chs"], channels, 1)
        for parameter in self.conv_out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Returns g(x), shaped as x."""
        image = x_BCHW
        if self.backbone_size is not None:
            image = F.interpolate(image, size=(self.backbone_size, self.backbone_size), mode="nearest")
        # The last feature map as (B, F, h, w), whatever the model's own layout (tokens, channels last).
        (features,) = self.backbone.forward_intermediates(
            self.conv_in(image), indices=1, norm=True, intermediates_only=True
        )
        return self.conv_out(F.interpolate(features, size=x_BCHW.shape[-2:], mode="nearest"))
