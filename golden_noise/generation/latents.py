"""Golden noise for a plain diffusers pipeline, in one call."""

from collections.abc import Iterable, Sequence

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from golden_noise.errors import UserError
from golden_noise.npnet import AnyNPNet, checkpoint
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.flux import FluxPipeline
from golden_noise.pipelines.hunyuan_dit import HunyuanDiTPipeline
from golden_noise.pipelines.sdxl import SDXLPipeline
from golden_noise.pipelines.stable_diffusion import SDPipeline
from golden_noise.pipelines.stable_diffusion_3 import SD3Pipeline

FAMILIES: tuple[type[Pipeline], ...] = (SDXLPipeline, SDPipeline, SD3Pipeline, FluxPipeline, HunyuanDiTPipeline)


def golden_latents(
    npnet: AnyNPNet | str,
    pipe: DiffusionPipeline,
    prompts: str | Sequence[str],
    seeds: int | Sequence[int],
    height: int | None = None,
    width: int | None = None,
) -> Tensor:
    """Starting noise for a diffusers call: `pipe(prompt, latents=golden_latents(npnet, pipe, prompt, 0))`.

    A seed means the same noise on every device and in every dtype. A sampler that draws noise itself needs a
    `generator=` too: `golden_noise.noise.sampler_generators(seeds)`.

    Args:
        npnet: on any device; noise of another size than its own needs its option `fit`. Or its source, as for
            `golden_noise.load`, which is loaded at each call.
        pipe: a pipeline of one of the FAMILIES; it is left as it is. HunyuanDiTPipeline needs
            `use_resolution_binning=False` in its call.
        prompts: one prompt, or as many as there are seeds.
        seeds: of the noise.
        height: of the images in pixels, as in the call of the pipeline; by default the pipeline's own.
        width: likewise.

    Returns:
        (number of seeds, C, height / 8, width / 8) of unit variance, on the pipeline's device, in its dtype. Flux gets
        the same as tokens, the form in which its call takes latents.

    Raises:
        UserError: an unknown pipeline, another number of prompts than of seeds, or no NPNet at that source.
    """
    seeds = [int(seed) for seed in (seeds if isinstance(seeds, Iterable) else [seeds])]  # NumPy integers included
    texts = [prompts] * len(seeds) if isinstance(prompts, str) else list(prompts)
    if not seeds or len(texts) != len(seeds):
        raise UserError(f"golden_latents: {len(texts)} prompts but {len(seeds)} seeds; give one seed for every prompt")
    pipeline = _wrap(pipe, height, width)
    network = checkpoint.load(npnet, "npnet", pipeline) if isinstance(npnet, str) else npnet
    if network is not npnet and network.device != pipeline.device:
        network.to(pipeline.device)
    with torch.no_grad():
        golden = network.golden(pipeline.draw_noise(seeds), pipeline.encode(texts))
    return pipeline.pack(golden.to(pipeline.device, pipeline.dtype))


def _wrap(pipe: DiffusionPipeline, height: int | None, width: int | None) -> Pipeline:
    family = next((family for family in FAMILIES if isinstance(pipe, family.diffusers_class)), None)
    if family is None:
        known = ", ".join(family.diffusers_class.__name__ for family in FAMILIES)
        raise UserError(f"golden_latents: no {type(pipe).__name__}, only {known}; call npnet(noise, embeds) instead")
    # Of the latents: a number, or height and width.
    sample = getattr(pipe, family.denoiser_name).config.get("sample_size", None) or pipe.default_sample_size
    rows, columns = (sample, sample) if isinstance(sample, int) else sample
    scale = pipe.vae_scale_factor
    return family(pipe, height or rows * scale, width or columns * scale, steps=1, guidance=1.0)
