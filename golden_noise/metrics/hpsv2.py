"""Human Preference Score v2 and v2.1 (Wu et al. 2023, arXiv 2306.09341): a tuned CLIP's cosine similarity × 100."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2.functional import normalize, resize

from golden_noise.device import pick_device
from golden_noise.images import from_pil, to_pil
from golden_noise.metrics.bicubic import bicubic
from golden_noise.metrics.clip import CLIP, MEAN, STD, ReadsCLIPTokens, from_open_clip
from golden_noise.metrics.gradients import GivesGradients
from golden_noise.metrics.loading import find_file, pick_dtype, read_tensors, version_of


class HPSv2(ReadsCLIPTokens, GivesGradients):
    """100 * cos(text, image); about 26 to 30. Scores of v2.0 and v2.1 cannot be compared with each other.

    The published code cleans prompts with ftfy before it tokenizes them; that differs only for text that was decoded
    wrongly or holds HTML entities.

    Args:
        weights: the published file, in open_clip's layout: a path, or ORG/NAME/FILE on the hub.
        model: folder or hub id of the CLIP whose config and tokenizer belong to it.
        antialias: whether images are smoothed as they shrink. The published code leaves that to torchvision, which has
            done so since 0.17 and did not when the first scores were published.
    """

    range = (-100.0, 100.0)

    def __init__(
        self,
        weights: str,
        model: str,
        revision: str | None = None,
        model_revision: str | None = None,
        antialias: bool = True,
        device: str = "auto",
        dtype: str = "float32",
    ):
        self.version, self.antialias = version_of(weights, revision), antialias
        self.device, torch_dtype = pick_device(device), pick_dtype(dtype)
        tensors = from_open_clip(read_tensors(find_file(weights, revision)))
        self.clip = CLIP(model, self.device, torch_dtype, revision=model_revision, tensors=tensors)

    @torch.no_grad()
    def score(self, prompts: Sequence[str], images: Tensor) -> Tensor:
        return self._judge(prompts, hps_pixels(images, self.clip.size, self.antialias)).cpu()

    def _prepare(self, images: Tensor) -> Tensor:
        pixels = bicubic(images, longest_side(images, self.clip.size), self.antialias)
        return bordered(pixels, self.clip.size)

    def _judge(self, prompts: Sequence[str], pixels: Tensor) -> Tensor:
        return 100 * self.clip.cosine(prompts, pixels)


def hps_pixels(images: Tensor, size: int, antialias: bool) -> Tensor:
    """Pixels (B, 3, size, size) of images (B, 3, H, W): the longest side shrunk to `size`, then black borders.

    Unlike CLIP's own preparation nothing is cropped, and the bicubic filter may overshoot [0, 1]. Images so thin that
    nothing would be left of them keep one pixel; the published code fails there.
    """
    pixels = from_pil(to_pil(images))
    if max(pixels.shape[-2:]) != size:
        sides = list(longest_side(pixels, size))
        pixels = resize(pixels, sides, InterpolationMode.BICUBIC, antialias=antialias)
    return bordered(pixels, size)


def longest_side(images: Tensor, size: int) -> tuple[int, int]:
    """Height and width of images (..., H, W) whose longest side becomes `size`; at least a pixel each."""
    longest = max(images.shape[-2:])
    height, width = (max(1, round(side * size / longest)) for side in images.shape[-2:])
    return height, width


def bordered(pixels: Tensor, size: int) -> Tensor:
    """Pixels (B, 3, H, W) of at most `size` a side in the middle of black ones (B, 3, size, size), normalised."""
    height, width = pixels.shape[-2:]
    top, left = (size - height) // 2, (size - width) // 2
    pixels = F.pad(pixels, (left, size - width - left, top, size - height - top))
    return normalize(pixels, list(MEAN), list(STD))
