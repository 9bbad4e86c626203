"""NPNet: predicts the golden noise from the noise and the prompt embedding in one forward pass."""

from golden_noise.npnet.denoiser import DenoiserNPNet
from golden_noise.npnet.npnet import NPNet
from golden_noise.npnet.svd import decompose

#: Both have `golden(noise, prompt)` and `save_pretrained`.
AnyNPNet = NPNet | DenoiserNPNet

__all__ = ["AnyNPNet", "DenoiserNPNet", "NPNet", "decompose"]
