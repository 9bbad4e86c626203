"""Flux.1: flow matching whose guidance is distilled into the denoiser (Black Forest Labs 2024)."""

from functools import cached_property
from typing import Any

import torch
from diffusers import FluxPipeline as DiffusersFlux
from torch import Tensor

from golden_noise.errors import UserError
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.prompt_embedding import PromptEmbedding
from golden_noise.pipelines.schedules import Flow


class FluxPipeline(Pipeline):
    """Any `FluxPipeline`. Loaded and set as `Pipeline` says.

    Its denoiser takes patches of 2x2 latents as tokens. That stays inside: noise is (16, H, W) here, as NPNet sees it.
    Guidance is an input of the denoiser, so every guidance costs one call, and none needs a negative prompt.

    Raises:
        UserError: a negative prompt, which distilled guidance does not have.
    """

    diffusers_class = DiffusersFlux
    denoiser_name = "transformer"
    conditions = ("embeds", "pooled")
    flow = True
    half = "bfloat16"  # float16 overflows

    def __init__(self, *args: Any, **settings: Any):
        super().__init__(*args, **settings)
        if self.negative_prompt:
            raise UserError(
                f"pipeline.negative_prompt={self.negative_prompt}: Flux has none, as its guidance is distilled"
            )

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        channels, height, width = super().latent_shape
        return channels // 4, height, width

    @cached_property
    def schedule(self) -> Flow:
        _, height, width = self.latent_shape
        return Flow(self.pipe.scheduler, tokens=height * width // 4, even=True)

    def _encode(self, prompts: list[str], negative: list[str] | None) -> PromptEmbedding:
        embeds, pooled, _ = self.pipe.encode_prompt(prompts, prompt_2=None, device=self.device)
        return PromptEmbedding(embeds, pooled)

    def _guided(self, latents: Tensor, timestep: float, prompt: PromptEmbedding, guidance: float) -> Tensor:
        return self.denoise(latents, timestep, prompt, guidance)

    def denoise(
        self, latents: Tensor, timestep: float, prompt: PromptEmbedding, guidance: float | None = None
    ) -> Tensor:
        """See `Pipeline`; with the config's guidance unless another is given."""
        count, _, height, width = latents.shape
        device, dtype = latents.device, latents.dtype
        strength = self.guidance if guidance is None else guidance
        tokens = self.denoiser(
            self.pack(latents),
            timestep=torch.full((count,), timestep, dtype=dtype, device=device) / 1000,
            guidance=torch.full((count,), strength, device=device) if self.denoiser.config.guidance_embeds else None,
            encoder_hidden_states=prompt.embeds,
            pooled_projections=prompt.pooled,
            txt_ids=torch.zeros(prompt.embeds.shape[1], 3, dtype=dtype, device=device),
            img_ids=self.pipe._prepare_latent_image_ids(count, height // 2, width // 2, device, dtype),
        ).sample
        return self.pipe._unpack_latents(tokens, self.height, self.width, self.pipe.vae_scale_factor)

    def pack(self, latents: Tensor) -> Tensor:
        """(B, C, H, W) to the tokens (B, H W / 4, 4 C)."""
        return self.pipe._pack_latents(latents, *latents.shape)
