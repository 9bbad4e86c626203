"""NPNet as a diffusers model."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from golden_noise.errors import UserError
from golden_noise.npnet.core.build import build
from golden_noise.npnet.core.network import Network
from golden_noise.npnet.core.text import LongPrompt
from golden_noise.npnet.pretrained import Pretrained, start_from
from golden_noise.npnet.strict import StrictModel
from golden_noise.pipelines.prompt_embedding import PromptEmbedding


class NPNet(Network, StrictModel):
    """`Network` with diffusers' `save_pretrained` and `from_pretrained`.

    Args:
        pretrained: True starts a timm backbone from timm's weights (downloads them), a path from that file. For
            `conv` it is the folder or hub id of the pipeline whose first convolution is copied. Not part of the saved
            config, so that `from_pretrained` never downloads what it is about to overwrite.

    The other arguments and errors are those of `Network`.
    """

    ignore_for_config = ["pretrained"]  # noqa: RUF012

    @register_to_config
    def __init__(
        self,
        latent_shape: Sequence[int],
        embeds_shape: Sequence[int],
        svd: bool = True,
        attention: bool = True,
        text: bool = True,
        signs: Literal["fixed", "raw"] = "fixed",
        backbone: str | None = None,
        backbone_args: Mapping[str, Any] | None = None,
        backbone_size: int | None = None,
        layout: Literal["map", "rows"] = "map",
        gates: bool = True,
        target: Literal["golden", "difference", "absolute"] = "golden",
        unit_variance: bool = False,
        fit: Literal["exact", "tile", "crop", "resize"] = "exact",
        long_prompt: LongPrompt = "truncate",
        pretrained: Pretrained = False,
    ):
        super().__init__(**{name: value for name, value in self.config.items() if not name.startswith("_")})
        if pretrained and self.residual_branch is not None:
            start_from(pretrained, self.residual_branch, str(backbone), backbone_args or {})

    @classmethod
    def from_single_file(cls, source: str, dtype: torch.dtype | None = None, **options: Any) -> Self:
        """Loads one file of weights in a dtype; see `golden_noise.npnet.checkpoint.read_file`."""
        from golden_noise.npnet.checkpoint import read_file  # which itself builds NPNets

        saved = read_file(source, **options)
        if saved.class_name != "NPNet":
            raise UserError(f"{source} holds a {saved.class_name}: golden_noise.load loads it")
        npnet = build(cls, saved)
        return npnet if dtype is None else npnet.to(dtype)

    def golden(self, noise: Tensor, prompt: PromptEmbedding) -> Tensor:
        """Golden noise in the dtype and on the device of the noise: the method that every NPNet has."""
        embeds = prompt.embeds.to(self.device, torch.float32)
        return self(noise.to(self.device), embeds).to(noise)
