"""NPNet, the network that turns noise into golden noise (arXiv 2411.09502), composed of its parts.

Shapes: B batch, C x H x W noise, L tokens of the prompt, D the width of their embedding.
"""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Literal, Self

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from golden_noise.errors import UserError
from golden_noise.npnet.residual import ResidualBranch
from golden_noise.npnet.svd import SVD, SVDBranch, decompose
from golden_noise.npnet.text import TextInjection
from golden_noise.pipelines.base import PromptEmbedding


class NPNet(ModelMixin, ConfigMixin):
    """Golden noise = noise + move, with `move = (f(x) - x) + (2 sigmoid(alpha) - 1) t + beta g(x + t)`.

    t is the text injection, f the SVD branch, g the residual branch. The published variants are choices of
    parts: `svd_unet` has f, `svd_unet+unet` f and g, `vit` and `e_unet` have g alone, without gates, the last
    with `target="difference"`.

    A new NPNet is exactly the identity, since every part starts at zero, yet gradients reach all of it.
    The published start, beta = 0, would shut the gate behind a branch that ends in a zero convolution:
    their product has no gradient with respect to either, and the branch would never learn. So beta starts
    at 1, alpha at 0.

    Args:
        latent_shape: (C, H, W) of the noise.
        embeds_shape: (L, D) of the prompt embedding.
        svd: whether to have the SVD branch.
        backbone: name of the timm model in the residual branch; None for no such branch.
        backbone_args: arguments of that timm model.
        backbone_size: side of the square the noise is resized to for the backbone; None feeds it as it is.
        gates: alpha and beta. Without them the move is `g(x + t)`, plus f's if there is f.
        target: what the parts add up to, x' - x (`golden`) or x - x' (`difference`).
        pretrained: True starts the backbone from timm's weights (downloads them). Not part of the saved
            config, so that `from_pretrained` never downloads what it is about to overwrite.

    Raises:
        UserError: no part that the prompt could act through, unknown backbone or target, or odd C with `svd`.
    """

    config_name = "config.json"
    ignore_for_config = ["pretrained"]  # noqa: RUF012

    @register_to_config
    def __init__(
        self,
        latent_shape: Sequence[int],
        embeds_shape: Sequence[int],
        svd: bool = True,
        backbone: str | None = None,
        backbone_args: Mapping[str, Any] | None = None,
        backbone_size: int | None = None,
        gates: bool = True,
        target: Literal["golden", "difference"] = "golden",
        pretrained: bool = False,
    ):
        super().__init__()
        self.latent_shape, self.embeds_shape = tuple(latent_shape), tuple(embeds_shape)
        self.sign = 1 if target == "golden" else -1
        if target not in ("golden", "difference"):
            raise UserError(f"target: must be golden or difference, got '{target}'")
        if not gates and backbone is None:
            raise UserError("gates: without them the prompt acts in the residual branch only, set a backbone")
        channels = latent_shape[0]
        self.text_injection = TextInjection(channels, embeds_shape)
        self.svd_branch = SVDBranch(latent_shape) if svd else None
        self.residual_branch = None
        if backbone:
            self.residual_branch = ResidualBranch(channels, backbone, backbone_args or {}, backbone_size, pretrained)
        self.alpha = nn.Parameter(torch.zeros(1)) if gates else None
        self.beta = nn.Parameter(torch.ones(1)) if gates and backbone else None

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | PathLike | None, **kwargs: Any) -> Self:
        """As diffusers' method, from a local folder or a hub id, in evaluation mode.

        Its way to save memory is off by default: it leaves unset those buffers of timm's models that no
        file holds.
        """
        kwargs.setdefault("low_cpu_mem_usage", False)
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    def forward(self, noise: Tensor, prompt_embeds: Tensor, svd: SVD | None = None) -> Tensor:
        """Predicts the golden noise.

        Args:
            noise: (B, C, H, W), standard normal, any floating dtype.
            prompt_embeds: (B, L, D).
            svd: `decompose(noise)` if it is at hand, else it is computed here.

        Returns:
            (B, C, H, W) in the dtype of the noise.

        Raises:
            UserError: a shape differs from what this NPNet was made for.
        """
        self._check_shapes(noise, prompt_embeds)
        x = noise.to(self.dtype)
        t = self.text_injection(x, prompt_embeds.to(self.dtype))
        move = torch.zeros_like(x)
        if self.svd_branch is not None:
            move = move + self.svd_branch(decompose(noise) if svd is None else svd)
        if self.alpha is not None:
            move = move + (2 * torch.sigmoid(self.alpha) - 1) * t
        if self.residual_branch is not None:
            g = self.residual_branch(x + t)
            move = move + (g if self.beta is None else self.beta * g)
        return noise + self.sign * move.to(noise.dtype)

    def golden(self, noise: Tensor, prompt: PromptEmbedding) -> Tensor:
        """Golden noise in the dtype and on the device of the noise: the method that every kind of NPNet has."""
        embeds = prompt.embeds.to(self.device, torch.float32)
        return self(noise.to(self.device), embeds).to(noise)

    def _check_shapes(self, noise: Tensor, prompt_embeds: Tensor) -> None:
        for name, given, shape in (
            ("noise", noise, self.latent_shape),
            ("prompt_embeds", prompt_embeds, self.embeds_shape),
        ):
            expected = (len(noise), *shape)
            if tuple(given.shape) != expected:
                raise UserError(f"{name}: this NPNet needs shape {expected}, got {tuple(given.shape)}")
