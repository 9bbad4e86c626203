"""Golden noise for diffusion models: learn, for a prompt, which starting noise to use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from golden_noise.generation.latents import golden_latents
    from golden_noise.npnet import DenoiserNPNet, LowFrequencyNPNet, NPNet
    from golden_noise.npnet.checkpoint import load
    from golden_noise.pairs import NoisePairDataModule

__version__ = "0.1.0"
__all__ = ["DenoiserNPNet", "LowFrequencyNPNet", "NPNet", "NoisePairDataModule", "golden_latents", "load"]

_MODULES = {  # imported at the first use of a name, so that `import golden_noise` does not wait for torch
    "DenoiserNPNet": "golden_noise.npnet",
    "LowFrequencyNPNet": "golden_noise.npnet",
    "NPNet": "golden_noise.npnet",
    "NoisePairDataModule": "golden_noise.pairs",
    "golden_latents": "golden_noise.generation.latents",
    "load": "golden_noise.npnet.checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
