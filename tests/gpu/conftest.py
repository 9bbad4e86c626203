"""Tests of all that differs on a CUDA device; without one they run on the CPU, so that they are not untested code."""

import gc

import pytest
import torch

from golden_noise.pipelines.sdxl import SDXLPipeline

SETTINGS = {"height": 32, "width": 32, "steps": 2, "guidance": 3.0}


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    return request.param


@pytest.fixture
def load(tiny_sdxl):
    """Loads the random pipeline."""

    def load_pipeline(device, dtype="float32", **options):
        return SDXLPipeline.load(str(tiny_sdxl), device=device, dtype=dtype, **SETTINGS, **options)

    return load_pipeline


@pytest.fixture
def allocated(device):
    """Bytes of tensors on the device, where it counts them."""

    def count():
        gc.collect()
        return torch.cuda.memory_allocated() if device == "cuda" else 0

    return count


@pytest.fixture
def exact():
    """Convolutions in float32, which are in TF32 by default on a GPU."""
    default = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = default
