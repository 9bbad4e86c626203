"""What keeps noise that is optimised close to standard normal noise.

Shapes: B batch, C x H x W noise, d = C H W.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from golden_noise.errors import UserError

BLOCK = 16  # coefficients of the spectrum that MPGR and GPER look at together
MAGNITUDE = math.sqrt(math.pi) / 2  # the expected magnitude of a standard complex normal number


@dataclass(frozen=True)
class Regulariser:
    """No regularisation, and the interface of all others: a penalty on the noise, or constraints that it must keep.

    Args:
        weight: of the penalty in the loss; None is the regulariser's own default.
    """

    weight: float | None = None
    default: ClassVar[float] = 0.0

    def check(self, size: int) -> None:
        """Refuse noise of d = `size` numbers that it cannot handle.

        Raises:
            UserError: it cannot.
        """

    def loss(self, noise: Tensor, iteration: int) -> Tensor:
        """The weighted penalty (B,) float32 of noise (B, C, H, W)."""
        weight = self.default if self.weight is None else self.weight
        return weight * self.penalty(noise.float(), iteration)

    def penalty(self, noise: Tensor, iteration: int) -> Tensor:
        """Least, (B,), where the noise is most like standard normal noise; `iteration` may choose what is looked at."""
        return noise.new_zeros(len(noise))

    def direction(self, gradient: Tensor) -> Tensor:
        """The gradient (B, C, H, W) that is followed."""
        return gradient

    def project(self, noise: Tensor) -> Tensor:
        """The noise (B, C, H, W) that is taken instead, after every step."""
        return noise


@dataclass(frozen=True)
class Norm(Regulariser):
    """ReNO's (arXiv 2406.04312): |x|^2 / 2 - (d - 1) log |x|, least at the likeliest norm of a normal vector.

    In float32, as |x|^2 overflows in float16.
    """

    default = 0.01

    def penalty(self, noise: Tensor, iteration: int) -> Tensor:
        flat = noise.flatten(1)
        norm = flat.norm(dim=1)
        return norm.square() / 2 - (flat.shape[1] - 1) * norm.log()


@dataclass(frozen=True)
class MPGR(Regulariser):
    """Moments and power spectrum (arXiv 2509.07027), of the numbers in a random order.

    |mean x| + |sqrt(mean x^2) - 1| + 25 * mean over blocks of 16 frequencies of |mean |X_k| / sqrt(d) - .875|.

    The formula is second-hand: the paper has no code. (The exact expectation of a magnitude is sqrt(pi) / 2 = .886.)
    The default weight is ours. The order is another one in every iteration, and the same for every sample.
    """

    default = 1.0

    def check(self, size: int) -> None:
        if size < 2 * BLOCK:
            raise UserError(f"search.regulariser=mpgr needs noise of at least {2 * BLOCK} numbers, not {size}")

    def penalty(self, noise: Tensor, iteration: int) -> Tensor:
        size = noise[0].numel()
        order = torch.randperm(size, generator=torch.Generator("cpu").manual_seed(iteration)).to(noise.device)
        flat = noise.flatten(1)[:, order]
        moments = flat.mean(1).abs() + (flat.square().mean(1).sqrt() - 1).abs()
        magnitudes = torch.fft.rfft(flat, norm="ortho").abs()[:, 1 : 1 + (size // 2 // BLOCK) * BLOCK]
        power = (magnitudes.unflatten(1, (-1, BLOCK)).mean(2) - 0.875).abs().mean(1)
        return moments + 25 * power


@dataclass(frozen=True)
class GPER(Regulariser):
    """Projection of gradient and noise on a set of white noise (arXiv 2602.08646).

    In every block of 16 coefficients of the unitary spectrum, the magnitudes sum to sqrt(pi) / 2 * 16 and their squares
    to 16, as they do on average for white noise. The nearest such magnitudes replace the noise's, whose phases stay.

    Our own form of a description at second hand. The spectrum is that of the flattened noise, compact: its two real
    coefficients, 0 and d / 2, make one complex number. Magnitudes that would become negative are 0 instead. The
    gradient keeps its length. The authors warn of few blocks; 256 numbers, the miniature's, have 8.
    """

    def check(self, size: int) -> None:
        if size % (2 * BLOCK):
            raise UserError(
                f"search.regulariser=gper needs noise of a multiple of {2 * BLOCK} numbers, not {size}: choose another "
                "regulariser or image size"
            )

    def direction(self, gradient: Tensor) -> Tensor:
        length = gradient.flatten(1).norm(dim=1) / gradient[0].numel() ** 0.5
        return self.project(gradient) * length[:, None, None, None]

    def project(self, noise: Tensor) -> Tensor:
        self.check(noise[0].numel())
        spectrum = compact_spectrum(noise.flatten(1).float())
        blocks = spectrum.unflatten(1, (-1, BLOCK))
        magnitudes = nearest_magnitudes(blocks.abs())
        return from_compact_spectrum(torch.polar(magnitudes, blocks.angle()).flatten(1)).reshape(noise.shape).to(noise)


@dataclass(frozen=True)
class Sphere(Regulariser):
    """The noise keeps the norm sqrt(d), around which that of normal vectors concentrates."""

    def project(self, noise: Tensor) -> Tensor:
        return with_norm(noise, noise[0].numel() ** 0.5)


REGULARISERS = {"none": Regulariser, "norm": Norm, "mpgr": MPGR, "gper": GPER, "sphere": Sphere}


def regulariser(name: str, weight: float | None = None) -> Regulariser:
    """One of REGULARISERS by its name.

    Raises:
        UserError: an unknown name, a negative weight, or a weight for one that has no penalty.
    """
    if name not in REGULARISERS:
        raise UserError(f"search.regulariser={name!r} must be one of {', '.join(REGULARISERS)}")
    if weight is not None and not REGULARISERS[name].default:
        raise UserError(f"search.weight={weight} has no effect with search.regulariser={name}: leave it at null")
    if weight is not None and not 0 <= weight < math.inf:
        raise UserError(f"search.weight={weight} must be a number >= 0")
    return REGULARISERS[name](weight)


def with_norm(noise: Tensor, norm: Tensor | float) -> Tensor:
    """Noise (B, C, H, W) scaled to a norm, one (B,) for each sample or one for all."""
    factor = norm / noise.flatten(1).norm(dim=1).clamp_min(torch.finfo(noise.dtype).tiny)
    return noise * factor[:, None, None, None]


def clipped(vectors: Tensor, norm: float) -> Tensor:
    """Vectors (B, C, H, W), shortened to the norm where they are longer, sample by sample."""
    lengths = vectors.flatten(1).norm(dim=1).clamp_min(torch.finfo(vectors.dtype).tiny)
    return vectors * (norm / lengths).clamp_max(1)[:, None, None, None]


def compact_spectrum(flat: Tensor) -> Tensor:
    """(B, d) real numbers, d even, as (B, d / 2) complex ones: standard normal where those are."""
    spectrum = torch.fft.rfft(flat, norm="ortho")
    both = torch.complex(spectrum[:, 0].real, spectrum[:, -1].real) / 2**0.5
    return torch.cat([both[:, None], spectrum[:, 1:-1]], dim=1)


def from_compact_spectrum(compact: Tensor) -> Tensor:
    """The inverse of `compact_spectrum`."""
    ends = (2**0.5 * compact[:, :1]).resolve_conj()
    full = [torch.complex(end, torch.zeros_like(end)) for end in (ends.real, ends.imag)]
    return torch.fft.irfft(torch.cat([full[0], compact[:, 1:], full[1]], dim=1), norm="ortho")


def nearest_magnitudes(magnitudes: Tensor) -> Tensor:
    """The nearest numbers (..., n) >= 0 of sum MAGNITUDE * n and sum of squares n.

    The sphere and the plane meet in a smaller sphere, on which the nearest point is found directly. Its negative
    numbers become 0, and the rest is projected again, as for Hoyer's sparseness (2004).
    """
    n = magnitudes.shape[-1]
    ramp = torch.linspace(-1, 1, n, dtype=torch.float64, device=magnitudes.device)
    found = magnitudes.double()
    free = torch.ones_like(found, dtype=torch.bool)
    while True:
        count = free.sum(-1, keepdim=True)
        mean = MAGNITUDE * n / count
        offsets = _centred(found, free)
        flat = offsets.norm(dim=-1, keepdim=True) < 1e-9 * n  # equal numbers have no nearest point: take any
        offsets = torch.where(flat, _centred(ramp.expand_as(found), free), offsets)
        radius = (n - count * mean.square()).clamp_min(0).sqrt()
        found = torch.where(free, mean + radius * offsets / offsets.norm(dim=-1, keepdim=True), 0)
        negative = found < 0
        if not negative.any():
            return found.to(magnitudes)
        free &= ~negative


def _centred(values: Tensor, free: Tensor) -> Tensor:
    """Offsets from the mean of the free values, 0 elsewhere."""
    mean = torch.where(free, values, 0).sum(-1, keepdim=True) / free.sum(-1, keepdim=True)
    return torch.where(free, values - mean, 0)
