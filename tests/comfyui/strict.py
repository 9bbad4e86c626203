"""How many images of the miniature are what their prompts ask for, in ComfyUI: `python -m tests.comfyui.strict`.

Every row is a scheduler, with the sampler euler in four steps without guidance.
"""

import tempfile
from pathlib import Path

import numpy as np

from golden_noise.evaluation.statistics import PairedSample
from golden_noise.hub import PACKAGE
from golden_noise.shapes.metric import ShapesScore
from golden_noise.shapes.prompts import draw_prompts
from tests.comfyui.engine import prepare

SCHEDULERS = ("ddim_uniform", "simple", "sgm_uniform", "normal", "karras")
FACTORS = (0.6, 0.8)
AT_ONCE = 100


def strict(miniature, count, scheduler):
    """The scores (count,) of plain, golden and scaled noise, by name, for the first held-out prompts."""
    from comfyui.adapters import DenoiserNPNet
    from comfyui.core.load import load
    from comfyui.noise import GoldenNoise, changing_noise
    from comfyui.settings import Settings

    network = DenoiserNPNet(load(PACKAGE / "shapes/weights/npnet"), "miniature")
    golden = changing_noise(miniature.model, GoldenNoise(network, Settings()).in_guider)
    models = {"plain": miniature.model, "golden": golden}
    for factor in FACTORS:
        models[f"x {factor}"] = changing_noise(miniature.model, lambda noise, guider, factor=factor: noise * factor)
    prompts = [prompt.text for prompt in draw_prompts("test", count)]
    return {name: _scores(miniature, model, prompts, scheduler) for name, model in models.items()}


def _scores(miniature, model, prompts, scheduler):
    from tests.comfyui.in_process import noise

    scores = []
    for start in range(0, len(prompts), AT_ONCE):
        part = prompts[start : start + AT_ONCE]
        latents = miniature.sample(model, miniature.batch(part), noise(start, len(part)), scheduler)
        scores.append(ShapesScore(strict=True).score(part, miniature.vae.decode(latents).movedim(-1, 1)))
    return np.concatenate(scores)


def main(count=500):
    """Prints a table."""
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        from tests.comfyui.in_process import Miniature

        miniature = Miniature()
        for scheduler in SCHEDULERS:
            scores = strict(miniature, count, scheduler)
            change = PairedSample(scores).difference_interval("plain", "golden")
            means = ", ".join(f"{name} {values.mean():.3f}" for name, values in scores.items())
            print(
                f"{scheduler}: {means}; golden {change.mean:+.3f} [{change.low:+.3f}, {change.high:+.3f}]", flush=True
            )


if __name__ == "__main__":
    main()
