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
