"""GenEval-style score of the miniature, by its exact detector."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from golden_noise.errors import UserError
from golden_noise.images import from_pil, to_pil
from golden_noise.shapes.detector import detect, fulfilment, passes
from golden_noise.shapes.scenes import Request, requests


class ShapesScore:
    """How well images fulfil captions of the miniature.

    Args:
        strict: 1 for exactly what the caption asks for and nothing else, else 0. If false, graded credit in [0, 1].
    """

    range = (0.0, 1.0)
    version = "1"

    def __init__(self, strict: bool):
        self.judge = passes if strict else fulfilment

    def score(self, prompts: Sequence[str], images: Tensor) -> Tensor:
        """Scores (B,) float32; see `Metric`.

        Raises:
            UserError: a prompt is not a caption of the miniature.
        """
        known = known_captions(prompts)
        detected = [detect(image) for image in from_pil(to_pil(images)).numpy()]
        return torch.tensor([float(self.judge(known[p], d)) for p, d in zip(prompts, detected, strict=True)])


def known_captions(prompts: Iterable[str]) -> dict[str, Request]:
    """The miniature's captions with what they ask for; refuse a prompt that is none of them."""
    known = requests()
    for prompt in prompts:
        if prompt not in known:
            raise UserError(f"the shapes metric cannot judge {prompt!r}: it knows captions such as 'a red circle'")
    return known


def check_captions(metrics: Mapping[str, Any], prompts: Iterable[str]) -> None:
    """Refuse prompts that a metric of these settings cannot judge, before anything is loaded."""
    if any(options.get("_target_") == f"{__name__}.{ShapesScore.__name__}" for options in metrics.values()):
        known_captions(prompts)
