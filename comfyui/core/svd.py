# Vendored from golden_noise/npnet/core/svd.py by python -m golden_noise.npnet.vendor; do not edit.
"""SVD branch: keeps the noise's singular vectors and predicts new singular values (arXiv 2411.09502).

Shapes: B batch, C x H x W noise, m x n the noise laid out as one matrix, k = min(m, n), a = 2, c = C / 2.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import UserError

SVD = tuple[Tensor, Tensor, Tensor]
INCOMPLETE = ("mps", "xpu", "privateuseone")  # Apple's and Intel's GPUs, and DirectML


def to_matrix(noise_BCHW: Tensor) -> Tensor:
    """`b (a c) h w -> b (a h) (c w)` with a = 2.

    Stacks the two halves of the channels, each laid out side by side.
    """
    b, channels, h, w = noise_BCHW.shape
    halves = noise_BCHW.unflatten(1, (2, channels // 2))
    return halves.permute(0, 1, 3, 2, 4).reshape(b, 2 * h, channels // 2 * w)


def to_noise(matrix_Bmn: Tensor, channels: int) -> Tensor:
    """The inverse of `to_matrix`."""
    b, m, n = matrix_Bmn.shape
    c = channels // 2
    halves = matrix_Bmn.reshape(b, 2, m // 2, c, n // c)
    return halves.permute(0, 1, 3, 2, 4).reshape(b, channels, m // 2, n // c)


@torch.no_grad()
def decompose(noise_BCHW: Tensor) -> SVD:
    """Singular value decomposition of the noise laid out as one matrix per sample.

    Computed by `eigh` of the Gram matrix in float64. On a CPU that costs 0.7 to 1.5 times
    `torch.linalg.svd` in float32 (benchmarks/README.md), which leaves errors of 1e-5 in the singular
    vectors: enough for two backends to disagree about a sign now and then. Here only the rounding of the
    result is left.

    Args:
        noise_BCHW: any floating dtype; C must be even.

    Returns:
        U (B, m, k), s (B, k) in descending order, Vh (B, k, n), all float32. The signs are the backend's own.

    Raises:
        UserError: the noise holds NaN or infinity.
    """
    device = noise_BCHW.device
    matrix_Bmn = to_matrix(_computable(noise_BCHW).double())
    wide = matrix_Bmn.shape[1] <= matrix_Bmn.shape[2]
    matrix_Bkl = matrix_Bmn if wide else matrix_Bmn.mT
    try:
        squares_Bk, short_Bkk = torch.linalg.eigh(matrix_Bkl @ matrix_Bkl.mT)
    except torch.linalg.LinAlgError as error:  # a symmetric matrix of finite numbers always has eigenvalues
        raise UserError("noise: it holds NaN or infinity, and has no singular values") from error
    short_Bkk = short_Bkk.flip(-1)
    s_Bk = squares_Bk.flip(-1).clamp_min(0).sqrt()
    # A value below it is zero to float64's precision: its long vector is then about zero, not infinite.
    floor_B1 = s_Bk[:, :1] * 1e-8 + torch.finfo(torch.float64).tiny
    long_Bkl = (short_Bkk.mT @ matrix_Bkl) / torch.maximum(s_Bk, floor_B1)[..., None]
    u, vh = (short_Bkk, long_Bkl) if wide else (long_Bkl.mT, short_Bkk.mT)
    return u.float().to(device), s_Bk.float().to(device), vh.float().to(device)


@torch.no_grad()
def decompose_raw(noise_BCHW: Tensor) -> SVD:
    """`decompose` with the signs of `torch.linalg.svd` in float32, which the published weights were trained with.

    They are arbitrary and differ between LAPACK and cuSOLVER, so that a network with `signs="raw"` gives another
    golden noise on another device.

    Returns:
        As `decompose`.
    """
    u_Bmk, s_Bk, vh_Bkn = decompose(noise_BCHW)
    raw_Bmk = torch.linalg.svd(to_matrix(_computable(noise_BCHW).float()), full_matrices=False).U.to(u_Bmk.device)
    sign_Bk = 1 - 2 * ((u_Bmk * raw_Bmk).sum(dim=1) < 0).to(u_Bmk.dtype)
    return u_Bmk * sign_Bk[:, None, :], s_Bk, vh_Bkn * sign_Bk[:, :, None]


def _computable(noise_BCHW: Tensor) -> Tensor:
    """The noise, on the CPU if its device may lack float64, `eigh` or `svd`."""
    return noise_BCHW.cpu() if noise_BCHW.device.type in INCOMPLETE else noise_BCHW


def fix_signs(u_Bmk: Tensor, vh_Bkn: Tensor) -> tuple[Tensor, Tensor]:
    """Removes the arbitrary common sign of each pair of singular vectors.

    The convention: the left vector's components, weighted by 1, 2, ..., m, have a positive sum.

    Every convention has near ties, where a rounding error picks the sign. For Gaussian noise the vectors
    are uniform on the sphere, and by the isoperimetric inequality no convention has fewer near ties there
    than the sign of a linear projection (measured in benchmarks/README.md: half as many as "the largest
    component is positive"). Unequal weights keep the sum away from zero for the antisymmetric vectors of
    tiled or mirrored noise.

    Returns:
        U and Vh with the convention's signs.
    """
    weights_m1 = torch.arange(1, u_Bmk.shape[1] + 1, device=u_Bmk.device, dtype=u_Bmk.dtype)[:, None]
    # Not a matrix product, which autocast would round to half precision.
    negative_Bk = (u_Bmk * weights_m1).sum(dim=1) < 0
    sign_Bk = 1 - 2 * negative_Bk.to(u_Bmk.dtype)
    return u_Bmk * sign_Bk[:, None, :], vh_Bkn * sign_Bk[:, :, None]


def _mlp(width_in: int, hidden: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width_in, hidden), nn.ReLU(), nn.Linear(hidden, width_out))


class SelfAttention(nn.Module):
    """Self-attention of several heads, without a bias in what makes queries, keys and values.

    Args:
        width: of a row, which the heads share.
        heads: their number, a divisor of the width.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])  # a list for the sake of its name in files

    def forward(self, rows_BNF: Tensor) -> Tensor:
        """(B, N, F) -> (B, N, F)."""
        q, k, v = (
            layer(rows_BNF).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.to_q, self.to_k, self.to_v)
        )
        return self.to_out[0](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class SVDBranch(nn.Module):
    """Predicts the change of the singular values from the decomposition.

    `s' = s + MLP4(mean(attention(r)))`, where `r = MLP1(U^T) + MLP2(Vh) + Linear(s)` is one row per value.
    Without attention it is `s' = s + mean(MLP4(r))`. MLP4's last layer starts at zero, so that a new branch
    changes nothing: a random one is worse than the identity.

    Args:
        latent_shape: (C, H, W); C must be even.
        attention: whether the rows attend to each other, as in the published weights.
        signs: `fixed` applies `fix_signs`, which every backend agrees on; `raw` takes the backend's own signs,
            as the published weights need them.

    Raises:
        UserError: C is odd, or unknown signs.
    """

    def __init__(self, latent_shape: Sequence[int], attention: bool = True, signs: Literal["fixed", "raw"] = "fixed"):
        super().__init__()
        channels, height, width = latent_shape
        if channels % 2:
            raise UserError(f"svd: the channels must be even in number, got latent_shape {latent_shape}")
        if signs not in ("fixed", "raw"):
            raise UserError(f"signs: must be fixed or raw, got '{signs}'")
        m, n = 2 * height, channels // 2 * width
        k = min(m, n)
        heads = math.gcd(8, k)
        self.channels, self.signs = channels, signs
        self.mlp1 = _mlp(m, 64, k)
        self.mlp2 = _mlp(n, 64, k)
        self.mlp3 = nn.Linear(k, k)
        self.attention = SelfAttention(k, heads) if attention else None
        self.mlp4 = _mlp(k, 1024, k)
        for parameter in self.mlp4[-1].parameters():
            nn.init.zeros_(parameter)

    def decompose(self, noise_BCHW: Tensor) -> SVD:
        """The decomposition of the noise that this branch reads."""
        return decompose(noise_BCHW) if self.signs == "fixed" else decompose_raw(noise_BCHW)

    def forward(self, svd: SVD) -> Tensor:
        """Returns the move `f(x) - x = U diag(s' - s) Vh` as (B, C, H, W).

        The published form is `f(x) = U diag(s') Vh`. Adding this move to x is the same function, but x is
        spared the rounding of the decomposition, so that a new NPNet is exactly the identity.
        """
        u_Bmk, s_Bk, vh_Bkn = svd
        if self.signs == "fixed":
            u_Bmk, vh_Bkn = fix_signs(u_Bmk, vh_Bkn)
        u_Bmk, s_Bk, vh_Bkn = (part.to(self.mlp3.weight.dtype) for part in (u_Bmk, s_Bk, vh_Bkn))
        rows_Bkk = self.mlp1(u_Bmk.mT) + self.mlp2(vh_Bkn) + self.mlp3(s_Bk)[:, None]
        if self.attention is None:
            delta_Bk = self.mlp4(rows_Bkk).mean(dim=1)
        else:
            delta_Bk = self.mlp4(self.attention(rows_Bkk).mean(dim=1))
        return to_noise(u_Bmk * delta_Bk[:, None, :] @ vh_Bkn, self.channels)
