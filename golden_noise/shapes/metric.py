"""GenEval-style score of the miniature, by its exact detector."""

from collections.abc import Sequence

import torch
from torch import Tensor

from golden_noise.errors import UserError
from golden_noise.images import from_pil, to_pil
from golden_noise.shapes.detector import detect, fulfilment, passes
from golden_noise.shapes.scenes import requests


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
        known = requests()
        for prompt in prompts:
            if prompt not in known:
                raise UserError(f"the shapes metric cannot judge {prompt!r}: it knows captions such as 'a red circle'")
        detected = [detect(image) for image in from_pil(to_pil(images)).numpy()]
        return torch.tensor([float(self.judge(known[p], d)) for p, d in zip(prompts, detected, strict=True)])
