"""Stable Diffusion 1.x and 2.x, whichever way they predict (Rombach et al. 2021, arXiv 2112.10752)."""

from typing import Any, ClassVar

from diffusers import StableDiffusionPipeline
from torch import Tensor

from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.prompt_embedding import PromptEmbedding


class SDPipeline(Pipeline):
    """Any `StableDiffusionPipeline`. Loaded and set as `Pipeline` says.

    It is loaded without its safety checker, which blacks out images: a comparison would take that for the noise's
    doing. A service that shows images to others needs the checker, in a plain diffusers pipeline (`golden_latents`).
    """

    diffusers_class = StableDiffusionPipeline
    clip_layer = "LAST_HIDDEN_STATES_NORMALIZED"
    parts: ClassVar[dict[str, Any]] = {
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }

    def _encode(self, prompts: list[str], negative: list[str] | None) -> PromptEmbedding:
        embeds, negative_embeds = self.pipe.encode_prompt(prompts, self.device, 1, True, negative)
        return PromptEmbedding(embeds, negative=PromptEmbedding(negative_embeds))

    def denoise(self, latents: Tensor, timestep: float, prompt: PromptEmbedding) -> Tensor:
        return self.denoiser(latents, timestep, prompt.embeds).sample
