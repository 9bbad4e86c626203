"""NPNet: predicts the golden noise from the noise and the prompt embedding in one forward pass."""

from golden_noise.npnet.denoiser import DenoiserNPNet
from golden_noise.npnet.low_frequency import LowFrequencyNPNet
from golden_noise.npnet.npnet import NPNet
from golden_noise.npnet.svd import decompose

#: All have `golden(noise, prompt)` and `save_pretrained`.
AnyNPNet = NPNet | DenoiserNPNet | LowFrequencyNPNet

__all__ = ["AnyNPNet", "DenoiserNPNet", "LowFrequencyNPNet", "NPNet", "decompose"]
