"""SDXL that starts from golden noise: a custom pipeline of diffusers. It needs golden-noise installed.

DiffusionPipeline.from_pretrained(MODEL, custom_pipeline=FOLDER, npnet=SOURCE, trust_remote_code=True)
"""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline

from golden_noise import golden_latents, load
from golden_noise.errors import UserError
from golden_noise.noise import sampler_generators
from golden_noise.pipelines.sdxl import SDXLPipeline

OTHERS = ("latents", "prompt_2", "prompt_embeds", "pooled_prompt_embeds", "num_images_per_prompt")


class GoldenNoisePipeline(StableDiffusionXLPipeline):
    """Draws from the golden noise of seeds.

    Args:
        npnet: where the network is, as for `golden_noise.load`; it is loaded at the first call, onto the pipeline's
            device. The others are SDXL's.
    """

    def __init__(
        self,
        vae,
        text_encoder,
        text_encoder_2,
        tokenizer,
        tokenizer_2,
        unet,
        scheduler,
        image_encoder=None,
        feature_extractor=None,
        force_zeros_for_empty_prompt: bool = True,
        add_watermarker: bool | None = None,
        npnet: str | None = None,
    ):
        parts = (vae, text_encoder, text_encoder_2, tokenizer, tokenizer_2, unet, scheduler)
        super().__init__(*parts, image_encoder, feature_extractor, force_zeros_for_empty_prompt, add_watermarker)
        self.register_to_config(npnet=npnet)

    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        seeds: int | Sequence[int] | None = None,
        height: int | None = None,
        width: int | None = None,
        **arguments: Any,
    ):
        """The images of SDXL's call from the golden noise of the prompts and seeds.

        Args:
            prompt: one, or as many as there are seeds.
            seeds: of the noise, which is the same on every device; None draws some with torch's own generator.
            height: of the images in pixels; None is the pipeline's own.
            width: likewise.
            arguments: of SDXL's call, but none that replaces the noise or the prompts. A `generator` draws the noise
                that some samplers add; by default it follows from the seeds.

        Raises:
            UserError: no network, such an argument, or another number of prompts than of seeds.
        """
        if unfit := [name for name in OTHERS if arguments.get(name) is not None]:
            raise UserError(f"{unfit[0]} does not go with seeds: call SDXL's pipeline with latents=golden_latents(...)")
        if seeds is None:
            seeds = torch.randint(2**32, (1 if isinstance(prompt, str) else len(prompt),)).tolist()
        seeds = list(seeds) if isinstance(seeds, Iterable) else [seeds]
        prompts = [prompt] * len(seeds) if isinstance(prompt, str) else list(prompt)
        latents = golden_latents(self.golden_network, self, prompts, seeds=seeds, height=height, width=width)
        arguments.setdefault("generator", sampler_generators(seeds))
        return super().__call__(prompts, height=height, width=width, latents=latents, **arguments)

    @cached_property
    def golden_network(self):
        """The network that predicts the golden noise."""
        if not self.config.npnet:
            raise UserError("no NPNet: give from_pretrained npnet=SOURCE, a folder, hub id or file")
        size = self.default_sample_size * self.vae_scale_factor
        pipeline = SDXLPipeline(self, size, size, steps=1, guidance=1.0)
        network = load(self.config.npnet, pipeline=pipeline)
        return network if network.device == pipeline.device else network.to(pipeline.device)
