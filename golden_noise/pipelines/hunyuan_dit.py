"""Hunyuan-DiT: a transformer with two text encoders that predicts the velocity (Li et al. 2024, arXiv 2405.08748)."""

from typing import Any

import torch
from diffusers import HunyuanDiTPipeline as DiffusersHunyuanDiT
from diffusers.models.embeddings import get_2d_rotary_pos_embed
from diffusers.pipelines.hunyuandit.pipeline_hunyuandit import get_resize_crop_region_for_grid
from torch import Tensor

from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.prompt_embedding import PromptEmbedding
from golden_noise.pipelines.stable_diffusion import SDPipeline

ORIGINAL_SIZE = (1024, 1024)  # which diffusers gives versions 1.0 and 1.1, whatever the image's size


class HunyuanDiTPipeline(Pipeline):
    """Any `HunyuanDiTPipeline`. Loaded and set as `Pipeline` says, without its safety checker as `SDPipeline`.

    NPNet sees the embedding of the bilingual CLIP (77 tokens), the denoiser T5's (256 tokens) too. Resolution binning,
    which would replace the size of the image but not of the latents, is off.
    """

    diffusers_class = DiffusersHunyuanDiT
    denoiser_name = "transformer"
    conditions = ("embeds", "mask", "embeds_2", "mask_2")
    parts = SDPipeline.parts

    def _encode(self, prompts: list[str], negative: list[str] | None) -> PromptEmbedding:
        embeds, negative_embeds, mask, negative_mask = self._encode_with(0, prompts, negative)
        embeds_2, negative_embeds_2, mask_2, negative_mask_2 = self._encode_with(1, prompts, negative)
        other = PromptEmbedding(negative_embeds, mask=negative_mask, embeds_2=negative_embeds_2, mask_2=negative_mask_2)
        return PromptEmbedding(embeds, mask=mask, embeds_2=embeds_2, mask_2=mask_2, negative=other)

    def _encode_with(self, index: int, prompts: list[str], negative: list[str] | None) -> tuple[Tensor, ...]:
        """Embeddings and masks of one text encoder: 0 is CLIP, 1 is T5."""
        return self.pipe.encode_prompt(
            prompts, device=self.device, dtype=self.dtype, negative_prompt=negative, text_encoder_index=index
        )

    def denoise(self, latents: Tensor, timestep: float, prompt: PromptEmbedding) -> Tensor:
        count = len(latents)
        sizes = [*ORIGINAL_SIZE, self.height, self.width, 0, 0]
        output = self.denoiser(
            latents,
            torch.full((count,), timestep, dtype=latents.dtype, device=latents.device),
            encoder_hidden_states=prompt.embeds,
            text_embedding_mask=prompt.mask,
            encoder_hidden_states_t5=prompt.embeds_2,
            text_embedding_mask_t5=prompt.mask_2,
            image_meta_size=torch.tensor([sizes], dtype=latents.dtype, device=latents.device).repeat(count, 1),
            style=torch.zeros(count, dtype=torch.long, device=latents.device),
            image_rotary_emb=self._rotary_embedding(latents.device),
        ).sample
        return output.chunk(2, dim=1)[0]  # the other half is the variance, which no sampler here reads

    def _rotary_embedding(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Positions of the patches, in the frame of a 512-pixel image."""
        config = self.denoiser.config
        grid = self.height // 8 // config.patch_size, self.width // 8 // config.patch_size
        frame = get_resize_crop_region_for_grid(grid, 512 // 8 // config.patch_size)
        return get_2d_rotary_pos_embed(config.attention_head_dim, frame, grid, device=device, output_type="pt")

    @property
    def call_arguments(self) -> dict[str, Any]:
        return super().call_arguments | {"use_resolution_binning": False}
