"""Golden noise is worth its cost in ComfyUI, too: more images are exactly what their prompt asks for."""

import pytest

from tests.comfyui.strict import strict

pytestmark = pytest.mark.comfy


def test_in_four_steps_golden_images_are_clearly_better(miniature):
    """Than plain ones, and than those of noise times a constant. ddim_uniform has the steps of the training."""
    scores = {name: values.mean() for name, values in strict(miniature, 160, "ddim_uniform").items()}
    assert scores["golden"] > scores["plain"] + 0.06, scores
    assert scores["golden"] > max(scores["x 0.6"], scores["x 0.8"]) + 0.03, scores
