"""Untrained models of the miniature: the real classes of SDXL and PickScore, at tiny sizes."""

from collections import Counter
from itertools import pairwise

from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from golden_noise.shapes.scenes import SIZE, requests

TEXT_WIDTH = 64
TOKENS = 16
END = "</w>"  # marks the last piece of a word


def build_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer (byte-level BPE) whose merges make one token of every word in the miniature's captions."""
    alphabet = sorted(ByteLevel.alphabet())
    merges = _learn_merges({word for text in requests() for word in text.split()})
    tokens = [*alphabet, *(letter + END for letter in alphabet), *("".join(merge) for merge in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=merges, model_max_length=TOKENS)


def _learn_merges(words: set[str]) -> list[tuple[str, str]]:
    """Byte-pair encoding (Sennrich et al. 2016) until every word is whole; ties go by alphabet, so it is repeatable."""
    splits = [[*word[:-1], word[-1] + END] for word in sorted(words)]
    merges = []
    while counts := Counter(pair for split in splits for pair in pairwise(split)):
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        splits = [_merge(split, best) for split in splits]
    return merges


def _merge(split: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for token in split:
        if merged and (merged[-1], token) == pair:
            merged[-1] += token
        else:
            merged.append(token)
    return merged


def _text_config(tokenizer: CLIPTokenizer, width: int, layers: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=TOKENS,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        # CLIP's usual initialisation (0.02) hardly distinguishes captions at this width.
        initializer_factor=3.0,
    )


def build_vae() -> AutoencoderKL:
    """32 x 32 pixels to 4 x 8 x 8 latents."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(24, 48, 64),
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=SIZE,
        mid_block_add_attention=False,
    )


def build_unet() -> UNet2DConditionModel:
    """SDXL's layout: no attention at the full resolution, text and time ids added to the time embedding."""
    return UNet2DConditionModel(
        sample_size=SIZE // 4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(64, 96, 128),
        layers_per_block=1,
        transformer_layers_per_block=1,
        attention_head_dim=(2, 3, 4),
        use_linear_projection=True,
        cross_attention_dim=2 * TEXT_WIDTH,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=TEXT_WIDTH + 6 * 8,
    )


def build_scheduler() -> DDIMScheduler:
    """SDXL's noise schedule, sampled with DDIM."""
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        timestep_spacing="leading",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
    )


def build_pipeline() -> StableDiffusionXLPipeline:
    """The whole miniature with random weights."""
    tokenizer = build_tokenizer()
    config = _text_config(tokenizer, TEXT_WIDTH, layers=3)
    return StableDiffusionXLPipeline(
        vae=build_vae(),
        text_encoder=CLIPTextModel(config),
        text_encoder_2=CLIPTextModelWithProjection(config),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=build_unet(),
        scheduler=build_scheduler(),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )


def build_reward() -> tuple[CLIPModel, CLIPProcessor]:
    """A tiny CLIP with PickScore's interface: 32-pixel images in 4-pixel patches."""
    tokenizer = build_tokenizer()
    config = CLIPConfig(
        text_config=_text_config(tokenizer, 96, layers=4).to_dict(),
        vision_config={
            "hidden_size": 96,
            "intermediate_size": 384,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": SIZE,
            "patch_size": 4,
            "initializer_factor": 1.0,
        },
        projection_dim=96,
    )
    images = CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    return CLIPModel(config), CLIPProcessor(image_processor=images, tokenizer=tokenizer)
