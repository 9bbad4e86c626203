"""CLIPScore (Hessel et al. 2021, arXiv 2104.08718): how well an image fits its caption."""

from collections.abc import Sequence

import torch
from torch import Tensor

from golden_noise.device import pick_device
from golden_noise.metrics.clip import CLIP, ReadsCLIPTokens, clip_pixels, clip_pixels_with_gradients
from golden_noise.metrics.gradients import GivesGradients
from golden_noise.metrics.loading import pick_dtype, version_of


class CLIPScore(ReadsCLIPTokens, GivesGradients):
    """2.5 * max(cos(text, image), 0); about 0.8 for images from Stable Diffusion XL.

    Its loss is -2.5 * cos without the maximum: the same for cosines from 0 on, and below 0 there is a way back.

    Args:
        model: folder or hub id of a CLIP in the layout of transformers.
        prefix: put before every prompt. The CLIPScore paper uses "A photo depicts "; tables of text-to-image models,
            Golden Noise's among them, do without.
    """

    range = (0.0, 2.5)

    def __init__(
        self,
        model: str,
        prefix: str = "",
        revision: str | None = None,
        device: str = "auto",
        dtype: str = "float32",
    ):
        self.version, self.prefix = version_of(model, revision), prefix
        self.device = pick_device(device)
        self.clip = CLIP(model, self.device, pick_dtype(dtype), revision=revision)

    @torch.no_grad()
    def score(self, prompts: Sequence[str], images: Tensor) -> Tensor:
        return self._judge(prompts, clip_pixels(images, self.clip.size)).clamp(min=0).cpu()

    def cut(self, prompts: Sequence[str]) -> int:
        """How many prompts are too long with their prefix."""
        return super().cut(self._texts(prompts))

    def _prepare(self, images: Tensor) -> Tensor:
        return clip_pixels_with_gradients(images, self.clip.size)

    def _judge(self, prompts: Sequence[str], pixels: Tensor) -> Tensor:
        return 2.5 * self.clip.cosine(self._texts(prompts), pixels)

    def _texts(self, prompts: Sequence[str]) -> list[str]:
        return [self.prefix + prompt for prompt in prompts]
