"""NPNet: predicts the golden noise from the noise and the prompt embedding in one forward pass."""

from golden_noise.npnet.npnet import NPNet
from golden_noise.npnet.svd import decompose

__all__ = ["NPNet", "decompose"]
