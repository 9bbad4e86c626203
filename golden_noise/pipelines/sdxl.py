"""SDXL and its relatives: few-step models and the bundled miniature (Podell et al. 2023, arXiv 2307.01952)."""

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor

from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.prompt_embedding import PromptEmbedding


class SDXLPipeline(Pipeline):
    """Any `StableDiffusionXLPipeline`. Loaded and set as `Pipeline` says."""

    diffusers_class = StableDiffusionXLPipeline
    clip_layer = "PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED"
    conditions = ("embeds", "pooled")

    def _encode(self, prompts: list[str], negative: list[str] | None) -> PromptEmbedding:
        embeds, negative_embeds, pooled, negative_pooled = self.pipe.encode_prompt(
            prompts, device=self.device, negative_prompt=negative
        )
        return PromptEmbedding(embeds, pooled, negative=PromptEmbedding(negative_embeds, negative_pooled))

    def denoise(self, latents: Tensor, timestep: float, prompt: PromptEmbedding) -> Tensor:
        sizes = [self.height, self.width, 0, 0, self.height, self.width]
        time_ids = torch.tensor([sizes], dtype=self.dtype, device=self.device).expand(len(latents), -1)
        added = {"text_embeds": prompt.pooled, "time_ids": time_ids}
        return self.denoiser(latents, timestep, prompt.embeds, added_cond_kwargs=added).sample
