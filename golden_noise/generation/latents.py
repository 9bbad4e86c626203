"""Golden noise for a plain diffusers pipeline, in one call."""

from collections.abc import Iterable, Sequence
from pkgutil import resolve_name
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from golden_noise.errors import UserError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from golden_noise.npnet import AnyNPNet
    from golden_noise.pipelines.base import Pipeline

#: The pipelines of diffusers that golden_latents knows, and what draws their noise and encodes their prompts. Names, so
#: that an import of this module does not wait for diffusers, and a call imports one family only.
FAMILIES = {
    "StableDiffusionXLPipeline": "golden_noise.pipelines.sdxl.SDXLPipeline",
    "StableDiffusionPipeline": "golden_noise.pipelines.stable_diffusion.SDPipeline",
    "StableDiffusion3Pipeline": "golden_noise.pipelines.stable_diffusion_3.SD3Pipeline",
    "FluxPipeline": "golden_noise.pipelines.flux.FluxPipeline",
    "HunyuanDiTPipeline": "golden_noise.pipelines.hunyuan_dit.HunyuanDiTPipeline",
}


def golden_latents(
    npnet: "AnyNPNet | str",
    pipe: "DiffusionPipeline",
    prompts: str | Sequence[str] | None = None,
    seeds: int | Sequence[int] = (),
    height: int | None = None,
    width: int | None = None,
    *,
    strength: float = 1.0,
    prompt_embeds: Tensor | None = None,
    **embeds: Tensor,
) -> Tensor:
    """Starting noise for a diffusers call: `pipe(prompt, latents=golden_latents(npnet, pipe, prompt, 0))`.

    Prompts that somebody else encoded (compel, sd_embed) are given as in the call of the pipeline. It then needs no
    text encoders here.

    A seed means the same noise on every device and in every dtype. A sampler that draws noise itself needs a
    `generator=` too: `golden_noise.noise.sampler_generators(seeds)`.

    Args:
        npnet: on any device; noise of another size than its own needs its option `fit`. Or its source, as for
            `golden_noise.load`, which is loaded at each call.
        pipe: a pipeline of one of the FAMILIES; it is left as it is. HunyuanDiTPipeline needs
            `use_resolution_binning=False` in its call.
        prompts: one prompt, or as many as there are seeds; None: they are encoded.
        seeds: of the noise.
        height: of the images in pixels, as in the call of the pipeline; by default the pipeline's own.
        width: likewise.
        strength: how far the noise moves: 0 leaves it, 1 makes it golden.
        prompt_embeds: (B, L, D) for B of one or the number of seeds, any floating dtype and device. L may be longer
            than the network was trained for, see its option `long_prompt`.
        embeds: the other parts, by the names of that call: `pooled_prompt_embeds` (B, P), Hunyuan-DiT's
            `prompt_attention_mask`, `prompt_embeds_2` and `prompt_attention_mask_2`, and the same with `negative_`.
            Only `DenoiserNPNet` needs them, and none of ours the negative ones.

    Returns:
        (number of seeds, C, height / 8, width / 8) of unit variance, on the pipeline's device, in its dtype. Flux gets
        the same as tokens, the form in which its call takes latents.

    Raises:
        UserError: an unknown pipeline, another number of prompts than of seeds, prompts in both forms or none,
            embeddings that do not fit the pipeline, or no NPNet at that source.
    """
    from golden_noise.generation.given import given_embedding  # late, as all that imports diffusers
    from golden_noise.generation.methods import moved
    from golden_noise.npnet import LowFrequencyNPNet, NPNet, checkpoint

    seeds = [int(seed) for seed in (seeds if isinstance(seeds, Iterable) else [seeds])]  # NumPy integers included
    given = embeds if prompt_embeds is None else {"prompt_embeds": prompt_embeds, **embeds}
    if prompts is not None and given:
        raise UserError(f"golden_latents: prompts and {next(iter(given))} are both given: choose one")
    texts = [prompts] * len(seeds) if isinstance(prompts, str) else list(prompts or ())
    if not seeds or (len(texts) != len(seeds) and not given):
        raise UserError(f"golden_latents: {len(texts)} prompts but {len(seeds)} seeds; give one seed for every prompt")
    pipeline = _wrap(pipe, height, width)
    network = checkpoint.load(npnet, "npnet", pipeline) if isinstance(npnet, str) else npnet
    if network is not npnet and network.device != pipeline.device:
        network.to(pipeline.device)
    with torch.no_grad():
        whole = not isinstance(network, NPNet | LowFrequencyNPNet)  # the others may call the denoiser
        prompt = given_embedding(pipeline, given, len(seeds), whole) if given else pipeline.encode(texts)
        noise = pipeline.draw_noise(seeds)
        golden = moved(noise, network.golden(noise, prompt), strength)
    return pipeline.pack(golden.to(pipeline.device, pipeline.dtype))


def _wrap(pipe: "DiffusionPipeline", height: int | None, width: int | None) -> "Pipeline":
    name = next((kind.__name__ for kind in type(pipe).__mro__ if kind.__name__ in FAMILIES), None)
    family = resolve_name(FAMILIES[name]) if name else None
    if family is None or not isinstance(pipe, family.diffusers_class):
        known = ", ".join(FAMILIES)
        raise UserError(f"golden_latents: no {type(pipe).__name__}, only {known}; call npnet(noise, embeds) instead")
    # Of the latents: a number, or height and width.
    sample = getattr(pipe, family.denoiser_name).config.get("sample_size", None) or pipe.default_sample_size
    rows, columns = (sample, sample) if isinstance(sample, int) else sample
    scale = pipe.vae_scale_factor
    return family(pipe, height or rows * scale, width or columns * scale, steps=1, guidance=1.0)
