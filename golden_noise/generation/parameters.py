"""What made an image, in the text that A1111's web UI writes and many programs read ("infotext", "parameters").

Its form: the prompt, a line `Negative prompt: TEXT` if there is one, and a last line of `KEY: VALUE`, separated by
commas, in which a value with a comma, a colon or a line end is a JSON string.
"""

import json
from typing import Any

import golden_noise
from golden_noise.pipelines.base import Pipeline
from golden_noise.prompts import Prompt

#: A1111's names of the samplers of diffusers. They are alike, not the same to the bit.
SAMPLERS = {
    "DDIMScheduler": "DDIM",
    "DPMSolverMultistepScheduler": "DPM++ 2M",
    "EulerAncestralDiscreteScheduler": "Euler a",
    "EulerDiscreteScheduler": "Euler",
    "HeunDiscreteScheduler": "Heun",
    "LCMScheduler": "LCM",
    "LMSDiscreteScheduler": "LMS",
    "PNDMScheduler": "PLMS",
    "UniPCMultistepScheduler": "UniPC",
}


def parameters(prompt: Prompt, noise: str, pipeline: Pipeline, model: str, npnet: str | None) -> str:
    """The text for one image.

    Args:
        noise: the name of the kind of starting noise.
        model: the pipeline's model, as its config names it.
        npnet: likewise the network that made the noise; None if none did.
    """
    sampler = type(pipeline.pipe.scheduler).__name__
    values = {
        "Steps": pipeline.steps,
        "Sampler": SAMPLERS.get(sampler, sampler.removesuffix("Scheduler")),
        "CFG scale": f"{pipeline.guidance:g}",
        "Seed": prompt.seed,
        "Size": f"{pipeline.width}x{pipeline.height}",
        "Model": model.rstrip("/").rpartition("/")[2],
        "RNG": "CPU",
        "Starting noise": noise,
        "NPNet": npnet,
        "Version": f"golden-noise {golden_noise.__version__}",
    }
    negative = [f"Negative prompt: {pipeline.negative_prompt}"] if pipeline.negative_prompt else []
    last = ", ".join(f"{name}: {_quoted(value)}" for name, value in values.items() if value is not None)
    return "\n".join([prompt.text, *negative, last])


def _quoted(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(sign in text for sign in ',:\n"') else text
