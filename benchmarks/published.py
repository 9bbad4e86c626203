"""The published network and its training step, written from their formulas: what ours is measured against.

Facts are of arXiv 2411.09502 and of what is known of the code behind it. No line of that code is here. Its mistakes
are, as far as they decide the arithmetic: channels-last features read as if channels came first, the prompt's map
repeated over the batch, and one prompt encoded per step for all of its pairs.

Shapes: B batch, C x H x W noise, m x m the noise laid out as one matrix, L tokens of the prompt, D their width.
"""

from collections.abc import Callable
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

LATENT, EMBEDS = (4, 128, 128), (77, 2048)
SWIN = "swin_tiny_patch4_window7_224"


def to_matrix(noise: Tensor) -> Tensor:
    """`b (a c) h w -> b (a h) (c w)` with a = c = 2."""
    b, channels, h, w = noise.shape
    return noise.view(b, 2, channels // 2, h, w).permute(0, 1, 3, 2, 4).reshape(b, 2 * h, channels // 2 * w)


def to_noise(matrix: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of `to_matrix`, into (B, C, H, W)."""
    b, channels, h, w = shape
    return matrix.view(b, 2, h, channels // 2, w).permute(0, 1, 3, 2, 4).reshape(shape)


def mlp(width_in: int, hidden: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width_in, hidden), nn.ReLU(), nn.Linear(hidden, width_out))


class TextInjection(nn.Module):
    """`t`: an adaptive group norm of one group, whose scale and shift are linear in the flat prompt."""

    def __init__(self, channels: int, numbers: int):
        super().__init__()
        self.linear = nn.Linear(numbers, 2 * channels)

    def forward(self, x: Tensor, embeds: Tensor) -> Tensor:
        scale, shift = self.linear(embeds.flatten(1))[:, :, None, None].chunk(2, dim=1)
        return F.group_norm(x, 1, eps=1e-6) * (1 + scale) + shift


class Attention(nn.Module):
    """Eight heads over the rows, no bias in queries, keys and values; the whole matrix of weights is formed."""

    def __init__(self, width: int, heads: int = 8):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)

    def forward(self, rows: Tensor) -> Tensor:
        b, n, width = rows.shape
        q, k, v = self.qkv(rows).view(b, n, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.mT * (width // self.heads) ** -0.5).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, width))


class SVDBranch(nn.Module):
    """`f(x) = U diag(s') V`. The weights that are published attend over the rows, the training code does not."""

    def __init__(self, side: int, attention: bool):
        super().__init__()
        self.mlp1, self.mlp2, self.mlp3 = mlp(side, 64, side), mlp(side, 64, side), nn.Sequential(nn.Linear(side, side))
        self.attention = Attention(side) if attention else None
        self.mlp4 = mlp(side, 1024, side)

    def forward(self, x: Tensor) -> Tensor:
        u, s, v = torch.linalg.svd(to_matrix(x))
        rows = self.mlp1(u.mT) + self.mlp2(v) + self.mlp3(s)[:, None]
        if self.attention is None:
            s = s + self.mlp4(rows).mean(dim=1)
        else:
            s = s + self.mlp4(self.attention(rows).mean(dim=1))
        return to_noise(u @ torch.diag_embed(s) @ v, x.shape)


class ResidualBranch(nn.Module):
    """`g`: what a Swin-T sees in the noise. Its seven rows of features count as channels, by mistake."""

    def __init__(self, channels: int, **sizes: Any):
        super().__init__()
        self.downconv = nn.Conv2d(channels, 3, 1)
        self.swin: Any = timm.create_model(SWIN, **sizes)
        self.upconv = nn.Conv2d(7, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        image = F.interpolate(x, size=(224, 224), mode="nearest")
        features = self.swin.forward_features(self.downconv(image))  # (B, 7, 7, 768)
        return self.upconv(F.interpolate(features, size=x.shape[-2:], mode="nearest"))


class PublishedNPNet(nn.Module):
    """`golden = f(x) + (2 sigmoid(alpha) - 1) t + beta g(x + t)`, with alpha = beta = 0 at the start.

    The names of the parameters are those of the community's files of weights.

    Args:
        latent: (C, H, W) of the noise, with C = 4 and H = W.
        embeds: (L, D) of the prompt's embedding.
        attention: as in the published weights, or without, as the published code trains.
        sizes: of a Swin smaller than Swin-T, as timm takes them, for builds that show no more than that they run.
    """

    def __init__(
        self,
        latent: tuple[int, ...] = LATENT,
        embeds: tuple[int, ...] = EMBEDS,
        attention: bool = False,
        **sizes: Any,
    ):
        super().__init__()
        self.text_embedding = TextInjection(latent[0], embeds[0] * embeds[1])
        self.unet_svd = SVDBranch(2 * latent[1], attention)
        self.unet_embedding = ResidualBranch(latent[0], **sizes)
        self.alpha, self.beta = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, embeds: Tensor) -> Tensor:
        """Golden noise of noise (B, C, H, W) and embeddings (B or 1, L, D)."""
        t = self.text_embedding(x, embeds)
        golden = self.unet_svd(x) + (2 * torch.sigmoid(self.alpha) - 1) * t
        return golden + self.beta * self.unet_embedding(x + t)


class PublishedStep:
    """One training step as the published code takes it: float32, every decomposition anew, one prompt encoded.

    Args:
        network: to train.
        encode: gives the embeddings (1, L, D) of one prompt.
    """

    def __init__(self, network: PublishedNPNet, encode: Callable[[str], Tensor]):
        self.network, self.encode = network, encode
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def __call__(self, noise: Tensor, golden: Tensor, prompts: list[str]) -> Tensor:
        """Trains on noise and golden noise (B, C, H, W), float16 wherever they are; returns the loss."""
        device = self.network.alpha.device
        noise, golden = noise.to(device).float(), golden.to(device).float()
        embeds = self.encode(prompts[0]).to(device).float()
        self.optimizer.zero_grad()
        loss = F.mse_loss(self.network(noise, embeds), golden)
        loss.backward()
        self.optimizer.step()
        return loss.detach()
