"""Models of the published sizes with random weights, and tiny ones: nothing is downloaded.

Neither arithmetic nor memory depends on the weights.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
)

from benchmarks.published import EMBEDS, LATENT, SWIN, PublishedNPNet
from golden_noise.metrics.pickscore import PickScore
from golden_noise.npnet import NPNet
from golden_noise.pipelines.overflow import keep_overflow
from golden_noise.pipelines.sdxl import SDXLPipeline
from golden_noise.shapes.models import build_pipeline, build_reward, build_scheduler, build_tokenizer

TINY_LATENT, TINY_EMBEDS = (4, 8, 8), (16, 128)
TINY_VIT = {"img_size": 8, "patch_size": 1, "in_chans": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
TINY_SWIN: dict[str, Any] = {"embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 3, 6)}
VIT_H: dict[str, Any] = {
    "text_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "hidden_act": "gelu",
        "projection_dim": 1024,
    },
    "vision_config": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "patch_size": 14,
        "hidden_act": "gelu",
        "projection_dim": 1024,
    },
    "projection_dim": 1024,
}


@contextmanager
def made_of(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """New modules are of a dtype and on a device from the start, which saves twice their memory."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(before)


def build_sdxl(device: torch.device, dtype: torch.dtype = torch.float16) -> StableDiffusionXLPipeline:
    """SDXL base 1.0 with random weights, as its configs on the hub describe it."""
    tokenizer = build_tokenizer()
    tokenizer.model_max_length = 77
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 1}
    clip_l = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    clip_g = CLIPTextConfig(
        hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20, projection_dim=1280
    )
    for config in (clip_l, clip_g):
        config.update(special)
    with made_of(dtype, device):
        unet = UNet2DConditionModel(
            sample_size=128,
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            use_linear_projection=True,
            cross_attention_dim=2048,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=1280 + 6 * 256,
        )
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            sample_size=1024,
            scaling_factor=0.13025,
        )
        encoders = {"text_encoder": CLIPTextModel(clip_l), "text_encoder_2": CLIPTextModelWithProjection(clip_g)}
    parts = encoders | {"vae": vae, "unet": unet, "tokenizer": tokenizer, "tokenizer_2": tokenizer}
    for model in (*encoders.values(), vae, unet):
        model.eval()
    return StableDiffusionXLPipeline(**parts, scheduler=build_scheduler(), add_watermarker=False).to(device)


def sdxl(
    device: torch.device, tiny: bool, dtype: torch.dtype = torch.float16, steps: int = 50, guidance: float = 5.5
) -> SDXLPipeline:
    """SDXL for 1024 x 1024 pixels, or the untrained miniature in float32."""
    pipe = build_pipeline().to(device) if tiny else build_sdxl(device, dtype)
    keep_overflow(pipe)
    pipe.set_progress_bar_config(disable=True)
    size = 32 if tiny else 1024
    return SDXLPipeline(pipe, height=size, width=size, steps=steps, guidance=guidance)


def few_steps(pipeline: SDXLPipeline, steps: int = 4) -> SDXLPipeline:
    """The same models with the sampler of a distilled one: few steps, no guidance."""
    return SDXLPipeline(pipeline.pipe, pipeline.height, pipeline.width, steps=steps, guidance=1.0)


def shapes(tiny: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(C, H, W) of the noise and (L, D) of the embeddings."""
    return (TINY_LATENT, TINY_EMBEDS) if tiny else (LATENT, EMBEDS)


def build_npnet(tiny: bool = False) -> NPNet:
    """The paper's network for SDXL (model=svd_unet+unet recipe=published), every part of which acts."""
    if tiny:
        npnet = NPNet(TINY_LATENT, TINY_EMBEDS, backbone="vit_tiny_patch16_224", backbone_args=TINY_VIT)
    else:
        npnet = NPNet(LATENT, EMBEDS, backbone=SWIN, backbone_size=224)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in npnet.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=generator)
    return npnet


def build_published(tiny: bool = False) -> PublishedNPNet:
    """The published network as its code trains it: without attention."""
    return PublishedNPNet(TINY_LATENT, TINY_EMBEDS, **TINY_SWIN) if tiny else PublishedNPNet()


def pickscore(folder: Path, device: torch.device, tiny: bool, dtype: str = "float32") -> PickScore:
    """PickScore with random weights, a CLIP ViT-H, which the folder keeps for the next call."""
    if not (folder / "preprocessor_config.json").exists():  # saved last
        if tiny:
            model, processor = build_reward()
            model.save_pretrained(folder)
            processor.save_pretrained(folder)
        else:
            with made_of(torch.float16, device):
                CLIPModel(CLIPConfig(**VIT_H)).save_pretrained(folder)
            tokenizer = build_tokenizer()
            tokenizer.model_max_length = 77
            tokenizer.save_pretrained(folder)
            CLIPImageProcessorPil().save_pretrained(folder)
    return PickScore(str(folder), device=str(device), dtype=dtype)
