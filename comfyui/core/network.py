# Vendored from golden_noise/npnet/core/network.py by python -m golden_noise.npnet.vendor; do not edit.
"""NPNet, the network that turns noise into golden noise (arXiv 2411.09502), composed of its parts.

Shapes: B batch, C x H x W noise, L tokens of the prompt, D the width of their embedding.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .errors import UserError
from .conv import ConvBranch
from .options import check_choice
from .residual import ResidualBranch
from .sizes import FITS, restore_std
from .svd import SVD, SVDBranch
from .text import LONG_PROMPTS, LongPrompt, TextInjection, shorten


class Network(nn.Module):
    """Golden noise = noise + move, with `move = (f(x) - x) + (2 sigmoid(alpha) - 1) t + beta g(x + t)`.

    t is the text injection, f the SVD branch, g the residual branch. The published variants are choices of
    parts: `svd_unet` has f, `svd_unet+unet` f and g, `unet`, `vit` and `e_unet` have g alone, without gates, the
    last with `target="difference"`.

    A new NPNet is exactly the identity, since every part starts at zero, yet gradients reach all of it.
    The published start, beta = 0, would shut the gate behind a branch that ends in a zero convolution:
    their product has no gradient with respect to either, and the branch would never learn. So beta starts
    at 1, alpha at 0.

    Args:
        latent_shape: (C, H, W) of the noise.
        embeds_shape: (L, D) of the prompt embedding.
        svd: whether to have the SVD branch.
        attention: whether the SVD branch's rows attend to each other.
        text: whether the prompt is injected; without it NPNet never sees the prompt.
        signs: of the singular vectors: `fixed` by a convention that all devices share, or the device's own (`raw`).
        backbone: name of the timm model in the residual branch, `conv` for convolutions behind a copy of the
            denoiser's first one, or None for no such branch.
        backbone_args: arguments of that timm model; for `conv` the `width` of the denoiser's first convolution.
        backbone_size: side of the square the noise is resized to for a timm model; None feeds it as it is.
        layout: how the timm model's features are read, `map`, or `rows` for weights published by the paper's authors.
        gates: alpha and beta. Without them the move is `g(x + t)`, plus f's if there is f.
        target: what the parts add up to: x' - x (`golden`), x - x' (`difference`), or x' itself (`absolute`), which
            weights of the published training code for `unet` and `vit` need. Then a new network is not the identity.
        unit_variance: scale every golden noise to the standard deviation of its noise: a control, which shows how much
            of a gain comes from smaller noise (experiments/guidance_free). It scores no better than none.
        fit: what to do with noise of another H x W: refuse it (`exact`), or `tile`, `crop` or `resize` it, which
            also keeps its standard deviation (`FITS`).
        long_prompt: what to do with more than L tokens: `truncate`, `average` or `chain` (`shorten`).

    Raises:
        UserError: no part that the prompt could act through, an option of unknown value, or odd C with `svd`.
    """

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
    ):
        super().__init__()
        check_choice("target", target, ("golden", "difference", "absolute"))
        check_choice("fit", fit, ("exact", *FITS))
        check_choice("long_prompt", long_prompt, LONG_PROMPTS)
        if not gates and backbone is None:
            raise UserError("gates: without them the prompt acts in the residual branch only, set a backbone")
        if target == "absolute" and svd:
            raise UserError("target=absolute: the SVD branch moves the noise, set svd=false or another target")
        self.latent_shape, self.embeds_shape = tuple(latent_shape), tuple(embeds_shape)
        self.trained_for: dict[str, Any] = {}  # as far as a file says it, see `Saved`
        self.target = target
        self.unit_variance, self.fit, self.long_prompt = unit_variance, fit, long_prompt
        arguments = backbone_args or {}
        self.text_injection = TextInjection(latent_shape[0], embeds_shape) if text else None
        self.svd_branch = SVDBranch(latent_shape, attention, signs) if svd else None
        self.residual_branch: nn.Module | None = None
        if backbone == "conv":
            self.residual_branch = ConvBranch(latent_shape[0], **arguments)
        elif backbone:
            self.residual_branch = ResidualBranch(latent_shape, backbone, arguments, backbone_size, layout)
        self.alpha = nn.Parameter(torch.zeros(1)) if gates and text else None
        self.beta = nn.Parameter(torch.ones(1)) if gates and backbone else None

    def forward(self, noise: Tensor, prompt_embeds: Tensor, svd: SVD | None = None) -> Tensor:
        """Predicts the golden noise.

        Args:
            noise: (B, C, H, W), standard normal, any floating dtype.
            prompt_embeds: (B, L, D), or longer (`long_prompt`).
            svd: `npnet.svd_branch.decompose(noise)` if it is at hand, else it is computed here.

        Returns:
            (B, C, H, W) in the dtype of the noise.

        Raises:
            UserError: a shape differs from what this NPNet was made for and no option allows it.
        """
        self._check_shapes(noise, prompt_embeds)
        if noise.numel() == 0:  # timm takes no empty batch
            return noise
        # Noise of half precision is rounded once, at the end.
        golden = noise.to(torch.promote_types(noise.dtype, torch.float32))
        for embeds in shorten(prompt_embeds, self.embeds_shape[0], self.long_prompt):
            golden = self._at_any_size(golden, embeds, svd)
            svd = None  # of the first noise only
        return golden.to(noise.dtype)

    def _at_any_size(self, noise: Tensor, embeds: Tensor, svd: SVD | None) -> Tensor:
        size = self.latent_shape[1], self.latent_shape[2]
        if tuple(noise.shape[2:]) == size:
            golden = self._at_own_size(noise, embeds, svd)
            return restore_std(golden, noise) if self.unit_variance else golden

        def predict(part: Tensor) -> Tensor:
            return restore_std(self._at_own_size(part, embeds), part)

        return restore_std(FITS[self.fit](noise, size, predict), noise)

    def _at_own_size(self, noise: Tensor, embeds: Tensor, svd: SVD | None = None) -> Tensor:
        dtype = next(self.parameters()).dtype
        x = noise.to(dtype)
        t = torch.zeros_like(x) if self.text_injection is None else self.text_injection(x, embeds.to(dtype))
        move = torch.zeros_like(x)
        if self.svd_branch is not None:
            move = move + self.svd_branch(self.svd_branch.decompose(noise) if svd is None else svd)
        if self.alpha is not None:
            move = move + (2 * torch.sigmoid(self.alpha) - 1) * t
        if self.residual_branch is not None:
            g = self.residual_branch(x + t)
            move = move + (g if self.beta is None else self.beta * g)
        if self.target == "absolute":
            return move.to(noise.dtype)
        return noise + move if self.target == "golden" else noise - move

    def _check_shapes(self, noise: Tensor, prompt_embeds: Tensor) -> None:
        expected, given = (len(noise), *self.latent_shape), tuple(noise.shape)
        if given != expected and (self.fit == "exact" or len(given) != 4 or given[:2] != expected[:2]):
            raise UserError(
                f"noise: this NPNet needs shape {expected}, got {given}; other heights and widths need fit=tile, "
                "fit=crop or fit=resize"
            )
        expected, given = (len(noise), *self.embeds_shape), tuple(prompt_embeds.shape)
        longer = len(given) == 3 and given == (expected[0], max(given[1], expected[1]), expected[2])
        if not longer:
            raise UserError(f"prompt_embeds: this NPNet needs shape {expected}, got {given}")
