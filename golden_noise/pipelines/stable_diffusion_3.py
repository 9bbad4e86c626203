"""Stable Diffusion 3 and 3.5: flow matching with three text encoders (Esser et al. 2024, arXiv 2403.03206)."""

from functools import cached_property

import torch
from diffusers import StableDiffusion3Pipeline
from torch import Tensor

from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.prompt_embedding import PromptEmbedding
from golden_noise.pipelines.schedules import Flow


class SD3Pipeline(Pipeline):
    """Any `StableDiffusion3Pipeline`. Loaded and set as `Pipeline` says.

    NPNet sees what the denoiser attends to: the tokens of both CLIPs (77), and T5's (256) behind them.
    """

    diffusers_class = StableDiffusion3Pipeline
    denoiser_name = "transformer"
    conditions = ("embeds", "pooled")
    flow = True
    half = "bfloat16"  # float16 overflows

    @cached_property
    def schedule(self) -> Flow:
        patch = self.denoiser.config.patch_size
        _, height, width = self.latent_shape
        return Flow(self.pipe.scheduler, tokens=(height // patch) * (width // patch))

    def _encode(self, prompts: list[str], negative: list[str] | None) -> PromptEmbedding:
        embeds, negative_embeds, pooled, negative_pooled = self.pipe.encode_prompt(
            prompts, prompt_2=None, prompt_3=None, device=self.device, negative_prompt=negative
        )
        return PromptEmbedding(embeds, pooled, negative=PromptEmbedding(negative_embeds, negative_pooled))

    def denoise(self, latents: Tensor, timestep: float, prompt: PromptEmbedding) -> Tensor:
        timesteps = torch.full((len(latents),), timestep, dtype=torch.float32, device=latents.device)
        return self.denoiser(latents, prompt.embeds, prompt.pooled, timesteps).sample
