"""Training NPNet on noise pairs."""

from golden_noise.training.callbacks import SampleGrid, SaveNPNet
from golden_noise.training.checkpoints import AtomicCheckpointIO, SaveLast
from golden_noise.training.module import ExplainedVariance, NPNetModule

__all__ = ["AtomicCheckpointIO", "ExplainedVariance", "NPNetModule", "SampleGrid", "SaveLast", "SaveNPNet"]
