"""SDXL and its relatives, the bundled miniature among them (Podell et al. 2023, arXiv 2307.01952)."""

from collections.abc import Sequence

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor

from golden_noise.errors import UserError
from golden_noise.pipelines.base import Pipeline, PromptEmbedding
from golden_noise.pipelines.loading import load_diffusers, pick_device


class SDXLPipeline(Pipeline):
    """Any `StableDiffusionXLPipeline`. Further keywords are those of `Pipeline`."""

    @classmethod
    def load(
        cls, source: str, device: str = "auto", dtype: str = "auto", variant: str | None = None, **settings
    ) -> "SDXLPipeline":
        """Load from a local folder or a hub id.

        Args:
            source: folder written by `save_pretrained`, or a hub id.
            device: "auto" takes a GPU if there is one.
            dtype: "auto" is half precision on a GPU and float32 elsewhere.
            variant: file variant on the hub, such as "fp16".
            settings: height, width, steps, guidance, guidance_rescale.

        Raises:
            UserError: the source is missing or holds another kind of pipeline, or no such device or dtype.
        """
        place = pick_device(device)
        if dtype == "auto":
            dtype = "float16" if place.type == "cuda" else "float32"
        if dtype not in ("float16", "bfloat16", "float32"):
            raise UserError(f"pipeline.model.dtype={dtype} must be auto, float16, bfloat16 or float32")
        pipe = load_diffusers(StableDiffusionXLPipeline, source, dtype=getattr(torch, dtype), variant=variant)
        return cls(pipe.to(place), **settings)

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
