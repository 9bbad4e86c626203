"""SDXL and its relatives: few-step models and the bundled miniature (Podell et al. 2023, arXiv 2307.01952)."""

from collections.abc import Sequence

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor

from golden_noise.pipelines.base import Pipeline, PromptEmbedding


class SDXLPipeline(Pipeline):
    """Any `StableDiffusionXLPipeline`. Loaded and set as `Pipeline` says."""

    diffusers_class = StableDiffusionXLPipeline

    @torch.inference_mode()
    def encode(self, prompts: Sequence[str]) -> PromptEmbedding:
        embeds, negative, pooled, negative_pooled = self.pipe.encode_prompt(
            list(prompts), device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=True
        )
        return PromptEmbedding(embeds, negative, pooled, negative_pooled, tuple(prompts))

    def denoise(self, latents: Tensor, timestep: int, embeds: Tensor, pooled: Tensor | None) -> Tensor:
        sizes = [self.height, self.width, 0, 0, self.height, self.width]
        time_ids = torch.tensor([sizes], dtype=self.dtype, device=self.device).expand(len(latents), -1)
        added = {"text_embeds": pooled, "time_ids": time_ids}
        return self.denoiser(latents, timestep, embeds, added_cond_kwargs=added).sample

    def pooled_arguments(self, prompt: PromptEmbedding) -> dict[str, Tensor | None]:
        return {
            "pooled_prompt_embeds": prompt.pooled,
            "negative_pooled_prompt_embeds": prompt.negative_pooled,
        }
