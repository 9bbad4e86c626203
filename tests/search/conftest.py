"""Searches on the tiny pipeline, and on denoisers whose mathematics is known."""

import pytest
from diffusers import DDIMScheduler, StableDiffusionXLPipeline

from golden_noise.noise import draw_noise
from golden_noise.pipelines.sdxl import SDXLPipeline

PROMPTS = ["a red circle above a blue square", "two crosses", "a green triangle"]
SETTINGS = {"height": 32, "width": 32, "steps": 2, "guidance": 1.0}  # of images; searches have steps of their own


class Ideal(SDXLPipeline):
    """Its denoiser sees the same noise everywhere, plus `slope` times the latents if there is a slope.

    Guidance adds `gap` times the conditional direction, if there is one.
    """

    noise = 0.7 * draw_noise([7], (4, 8, 8))
    gap = slope = 0.0
    direction = draw_noise([8], (4, 8, 8))

    def denoise(self, latents, timestep, prompt):
        conditional = (prompt.embeds != 0).flatten(1).any(1)[:, None, None, None]
        alpha = self.pipe.scheduler.alphas_cumprod[timestep]
        noise = self.noise + self.gap * self.direction * conditional + self.slope * latents
        if self.pipe.scheduler.config.prediction_type == "epsilon":
            return noise
        return (noise - (1 - alpha).sqrt() * latents) / alpha.sqrt()


@pytest.fixture(scope="module")
def sdxl(tiny_sdxl):
    return SDXLPipeline.load(str(tiny_sdxl), device="cpu", **SETTINGS)


@pytest.fixture(scope="module")
def prompt(sdxl):
    return sdxl.encode(PROMPTS)


@pytest.fixture(scope="module")
def ideal(sdxl):
    def build(prediction: str = "epsilon", gap: float = 0.0, slope: float = 0.0) -> Ideal:
        components = sdxl.pipe.components
        scheduler = DDIMScheduler.from_config(components["scheduler"].config, prediction_type=prediction)
        pipe = StableDiffusionXLPipeline(**components | {"scheduler": scheduler}, add_watermarker=False)
        pipeline = Ideal(pipe, **SETTINGS)
        pipeline.gap, pipeline.slope = gap, slope
        return pipeline

    return build
