"""The network that moves only the lowest modes of the noise, as a diffusers model."""

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from golden_noise.npnet.core.low_frequency import LowFrequencyNetwork
from golden_noise.npnet.strict import StrictModel
from golden_noise.pipelines.prompt_embedding import PromptEmbedding


class LowFrequencyNPNet(LowFrequencyNetwork, StrictModel):
    """`LowFrequencyNetwork` with diffusers' `save_pretrained` and `from_pretrained`; its options are the same."""

    __init__ = register_to_config(LowFrequencyNetwork.__init__)

    def golden(self, noise: Tensor, prompt: PromptEmbedding) -> Tensor:
        """Golden noise in the dtype and on the device of the noise: the method that every NPNet has."""
        embeds = prompt.embeds.to(self.device, torch.float32)
        return self(noise.to(self.device), embeds).to(noise)
