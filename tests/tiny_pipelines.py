"""Tiny real pipelines with random weights, saved as their classes save them."""

import pytest
import torch
from lightning.pytorch.utilities.seed import isolate_rng


@pytest.fixture(scope="session")
def tiny_sdxl(tmp_path_factory):
    """Folder of a StableDiffusionXLPipeline with random weights: 32 x 32 pixels, 4 x 8 x 8 latents."""
    from golden_noise.shapes.models import build_pipeline  # takes seconds, and few tests need it

    folder = tmp_path_factory.mktemp("tiny_sdxl")
    with isolate_rng():
        torch.manual_seed(0)
        pipe = build_pipeline()
        small = {
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "block_out_channels": (16, 32),
            "attention_head_dim": (2, 4),
            "norm_num_groups": 8,
        }
        unet = type(pipe.unet).from_config(pipe.unet.config, **small)
        pipe.register_modules(unet=unet, vae=tiny_vae(channels=4, levels=3))
        pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_sd(tmp_path_factory):
    """Folder of a StableDiffusionPipeline with random weights: 32 x 32 pixels, 4 x 8 x 8 latents."""
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel

    from golden_noise.shapes.models import TEXT_WIDTH, build_pipeline

    folder = tmp_path_factory.mktemp("tiny_sd")
    with isolate_rng():
        torch.manual_seed(0)
        shared = build_pipeline().components
        unet = UNet2DConditionModel(
            sample_size=8,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            block_out_channels=(16, 32),
            layers_per_block=1,
            norm_num_groups=8,
            attention_head_dim=4,
            cross_attention_dim=TEXT_WIDTH,
        )
        parts = {name: shared[name] for name in ("text_encoder", "tokenizer", "scheduler")}
        parts |= {"unet": unet, "vae": tiny_vae(channels=4, levels=3)}
        StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        ).save_pretrained(folder)
    return folder


def tiny_t5(width):
    """T5 that reads letter by letter."""
    from string import ascii_lowercase

    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    special, letters = ("<pad>", "</s>", "<unk>"), ("▁", *ascii_lowercase)
    tokenizer = T5Tokenizer(vocab=[*((name, 0.0) for name in special), *((letter, -3.0) for letter in letters)])
    config = T5Config(vocab_size=len(tokenizer), d_model=width, d_kv=8, d_ff=32, num_layers=2, num_heads=4)
    return T5EncoderModel(config), tokenizer


def tiny_vae(channels, levels, **options):
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=(8,) * levels,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=channels,
        **options,
    )


@pytest.fixture(scope="session")
def tiny_hunyuan(tmp_path_factory):
    """Folder of a HunyuanDiTPipeline with random weights: 64 x 64 pixels, 4 x 8 x 8 latents, 77 x 32 embeddings."""
    from string import ascii_lowercase

    from diffusers import DDPMScheduler, HunyuanDiT2DModel, HunyuanDiTPipeline
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("tiny_hunyuan")
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *ascii_lowercase, *(f"##{x}" for x in ascii_lowercase)]
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
    with isolate_rng():
        torch.manual_seed(0)
        text_encoder_2, tokenizer_2 = tiny_t5(width=32)
        HunyuanDiTPipeline(
            vae=tiny_vae(channels=4, levels=4),  # the pipeline itself counts on 8 pixels per latent
            text_encoder=BertModel(BertConfig(vocab_size=len(tokens), **small)),
            tokenizer=BertTokenizer(vocab={token: i for i, token in enumerate(tokens)}),
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
            transformer=HunyuanDiT2DModel(
                sample_size=8,
                num_layers=2,
                patch_size=2,
                attention_head_dim=8,
                num_attention_heads=3,
                hidden_size=24,
                in_channels=4,
                cross_attention_dim=32,
                cross_attention_dim_t5=32,
                pooled_projection_dim=4,
            ),
            scheduler=DDPMScheduler(
                beta_schedule="scaled_linear",
                beta_start=0.00085,
                beta_end=0.018,
                prediction_type="v_prediction",
                steps_offset=1,
                clip_sample=False,
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_sd3(tmp_path_factory):
    """Folder of a StableDiffusion3Pipeline with random weights: 32 x 32 pixels, 16 x 8 x 8 latents, 272 x 32."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
    from transformers import CLIPTextModelWithProjection

    from golden_noise.shapes.models import _text_config, build_tokenizer

    folder = tmp_path_factory.mktemp("tiny_sd3")
    with isolate_rng():
        torch.manual_seed(0)
        tokenizer, (text_encoder_3, tokenizer_3) = build_tokenizer(), tiny_t5(width=32)
        config = _text_config(tokenizer, 16, layers=2)
        StableDiffusion3Pipeline(
            vae=tiny_vae(channels=16, levels=3, scaling_factor=1.5, shift_factor=0.06, use_quant_conv=False),
            text_encoder=CLIPTextModelWithProjection(config),
            tokenizer=tokenizer,
            text_encoder_2=CLIPTextModelWithProjection(config),
            tokenizer_2=tokenizer,
            text_encoder_3=text_encoder_3,
            tokenizer_3=tokenizer_3,
            transformer=SD3Transformer2DModel(
                sample_size=8,
                num_layers=2,
                attention_head_dim=8,
                num_attention_heads=4,
                joint_attention_dim=32,
                caption_projection_dim=32,
                pooled_projection_dim=32,
                pos_embed_max_size=16,
                dual_attention_layers=(0,),
                qk_norm="rms_norm",
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_flux(tmp_path_factory):
    """Folder of a FluxPipeline with random weights: 32 x 32 pixels, 16 x 8 x 8 latents, 512 x 32 embeddings."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextModel

    from golden_noise.shapes.models import _text_config, build_tokenizer

    folder = tmp_path_factory.mktemp("tiny_flux")
    with isolate_rng():
        torch.manual_seed(0)
        tokenizer, (text_encoder_2, tokenizer_2) = build_tokenizer(), tiny_t5(width=32)
        FluxPipeline(
            vae=tiny_vae(channels=16, levels=3, scaling_factor=0.36, shift_factor=0.12, use_quant_conv=False),
            text_encoder=CLIPTextModel(_text_config(tokenizer, 16, layers=2)),
            tokenizer=tokenizer,
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
            transformer=FluxTransformer2DModel(
                in_channels=64,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=32,
                pooled_projection_dim=16,
                guidance_embeds=True,
                axes_dims_rope=(4, 4, 8),
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(
                shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15
            ),
        ).save_pretrained(folder)
    return folder
