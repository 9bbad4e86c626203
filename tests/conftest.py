"""What every test gets: no network, no leftovers of the test before, and a tiny real pipeline on disk."""

import os

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
}

import pytest
import torch
from lightning.pytorch.utilities.seed import isolate_rng

torch.set_num_threads(2)


@pytest.fixture(autouse=True)
def clean_process():
    """Undoes what a test left behind: environment, random states, determinism, process group."""
    environment = dict(os.environ)
    with isolate_rng():
        yield
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    torch.use_deterministic_algorithms(False)
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture(scope="session")
def tiny_sdxl(tmp_path_factory):
    """Folder of a StableDiffusionXLPipeline with random weights: 32 x 32 pixels, 4 x 8 x 8 latents."""
    from golden_noise.shapes.models import build_pipeline  # takes seconds, and few tests need it

    folder = tmp_path_factory.mktemp("tiny_sdxl")
    with isolate_rng():
        torch.manual_seed(0)
        build_pipeline().save_pretrained(folder)
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
        parts = {name: shared[name] for name in ("vae", "text_encoder", "tokenizer", "scheduler")}
        StableDiffusionPipeline(
            **parts, unet=unet, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        ).save_pretrained(folder)
    return folder
