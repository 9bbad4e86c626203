"""Golden noise is worth its cost in ComfyUI, too: more images are exactly what their prompt asks for."""

import pytest

from golden_noise.hub import PACKAGE
from golden_noise.shapes.metric import ShapesScore
from golden_noise.shapes.prompts import draw_prompts

pytestmark = pytest.mark.comfy

COUNT = 160


def test_in_four_steps_golden_images_are_clearly_better(miniature):
    """Than plain ones, and than those of noise times a constant. ddim_uniform has the steps of the training."""
    from comfyui.adapters import DenoiserNPNet
    from comfyui.core.load import load
    from comfyui.noise import GoldenNoise, changing_noise
    from comfyui.settings import Settings
    from tests.comfyui.in_process import noise

    prompts = [prompt.text for prompt in draw_prompts("test", COUNT)]
    network = DenoiserNPNet(load(str(PACKAGE / "shapes/weights/npnet")), "miniature")
    models = {
        "plain": miniature.model,
        "golden": changing_noise(miniature.model, GoldenNoise(network, Settings()).in_guider),
        "scaled": changing_noise(miniature.model, lambda given, guider: 0.6 * given),
    }
    positive, drawn, strict = miniature.batch(prompts), noise(0, COUNT), {}
    for name, model in models.items():
        images = miniature.vae.decode(miniature.sample(model, positive, drawn)).movedim(-1, 1)
        strict[name] = ShapesScore(strict=True).score(prompts, images).mean().item()
    assert strict["golden"] > strict["plain"] + 0.06, strict
    assert strict["golden"] > strict["scaled"] + 0.03, strict
