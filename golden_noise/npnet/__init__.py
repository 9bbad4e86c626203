"""NPNet: predicts the golden noise from the noise and the prompt embedding in one forward pass."""

from golden_noise.npnet.core.svd import decompose
from golden_noise.npnet.denoiser import DenoiserNPNet
from golden_noise.npnet.low_frequency import LowFrequencyNPNet
from golden_noise.npnet.npnet import NPNet

#: All have `golden(noise, prompt)` and `save_pretrained`.
AnyNPNet = NPNet | DenoiserNPNet | LowFrequencyNPNet

__all__ = ["AnyNPNet", "DenoiserNPNet", "LowFrequencyNPNet", "NPNet", "decompose"]
