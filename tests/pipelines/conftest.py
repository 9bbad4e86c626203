import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline

from golden_noise.pipelines.sdxl import SDXLPipeline

SETTINGS = {"height": 32, "width": 32, "steps": 4, "guidance": 3.0}


@pytest.fixture(scope="session")
def sdxl(tiny_sdxl):
    return SDXLPipeline.load(str(tiny_sdxl), device="cpu", **SETTINGS)


@pytest.fixture(scope="session")
def build(sdxl):
    """The same models with other scheduler settings or sampler settings."""

    def build_pipeline(scheduler: type = DDIMScheduler, prediction: str = "epsilon", **settings) -> SDXLPipeline:
        components = sdxl.pipe.components
        other = scheduler.from_config(components["scheduler"].config, prediction_type=prediction)
        pipe = StableDiffusionXLPipeline(**components | {"scheduler": other}, add_watermarker=False)
        return SDXLPipeline(pipe, **SETTINGS | settings)

    return build_pipeline


@pytest.fixture(scope="session")
def alphas() -> torch.Tensor:
    """Cumulative alphas of SDXL's schedule, by its definition."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()
