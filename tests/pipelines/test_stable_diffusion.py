"""SDPipeline: what test_contract.py does not see of it."""

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPImageProcessorPil

from golden_noise.errors import UserError
from golden_noise.noise import draw_noise
from golden_noise.pipelines.stable_diffusion import SDPipeline

NOISE = draw_noise([0, 1], (4, 8, 8))
SETTINGS = {"height": 32, "width": 32, "steps": 2, "guidance": 3.0}


@pytest.fixture(scope="module")
def sd(tiny_sd):
    return SDPipeline.load(str(tiny_sd), device="cpu", **SETTINGS)


def test_there_are_no_pooled_parts(sd):
    prompt = sd.encode(["a red circle", "two crosses"])
    assert prompt.embeds.shape == prompt.negative.embeds.shape == (2, 16, 64)
    assert prompt.tensors.keys() == prompt.negative.tensors.keys() == {"embeds"}
    assert sd.latent_shape == (4, 8, 8)


def test_latents_of_another_size_are_refused(sd):
    with pytest.raises(UserError, match=r"\(4, 8, 8\)"):
        sd.sample(sd.encode(["a red circle"]), torch.zeros(1, 4, 16, 16))


def test_half_precision(tiny_sd):
    half = SDPipeline.load(str(tiny_sd), device="cpu", dtype="bfloat16", **SETTINGS)
    prompt = half.encode(["a red circle", "two crosses"])
    assert half.dtype == prompt.embeds.dtype == torch.bfloat16
    assert half.predict(NOISE, 801, prompt, 3.0).dtype == torch.float32
    assert half.sample(prompt, NOISE).dtype == torch.float32


def test_no_safety_checker_blacks_images_out(tiny_sd, tmp_path):
    small = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 1, "num_attention_heads": 4}
    vision = small | {"image_size": 32, "patch_size": 8}
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=16))
    checker.concept_embeds_weights.data.fill_(-2.0)  # below any cosine: everything is flagged
    images = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    pipe = StableDiffusionPipeline.from_pretrained(tiny_sd, safety_checker=checker, feature_extractor=images)
    pipe.save_pretrained(tmp_path)
    flagged = StableDiffusionPipeline.from_pretrained(tmp_path)
    assert not flagged("two crosses", num_inference_steps=1, height=32, width=32, output_type="pt").images.any()
    sd = SDPipeline.load(str(tmp_path), device="cpu", **SETTINGS)
    assert sd.sample(sd.encode(["two crosses"]), NOISE[:1]).any()
