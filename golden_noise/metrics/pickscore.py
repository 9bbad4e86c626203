"""PickScore (Kirstain et al. 2023, arXiv 2305.01569): scaled cosine similarity of a CLIP tuned on human preferences."""

from collections.abc import Sequence

import torch
from PIL.Image import Resampling
from torch import Tensor
from torchvision.transforms.v2.functional import normalize
from transformers import CLIPImageProcessorPil

from golden_noise.device import pick_device
from golden_noise.errors import UserError
from golden_noise.images import to_pil
from golden_noise.metrics.bicubic import bicubic
from golden_noise.metrics.clip import CLIP, ReadsCLIPTokens, shortest_side
from golden_noise.metrics.gradients import GivesGradients
from golden_noise.metrics.loading import load, pick_dtype, version_of


class PickScore(ReadsCLIPTokens, GivesGradients):
    """exp(logit_scale) * cos(text, image); about 20 to 23 with the published weights.

    Args:
        model: folder or hub id of the CLIP weights.
        processor: folder or hub id of its tokenizer and image processor, the model's own by default.
    """

    range = (-100.0, 100.0)  # CLIP caps exp(logit_scale) at 100

    def __init__(
        self,
        model: str,
        processor: str | None = None,
        revision: str | None = None,
        processor_revision: str | None = None,
        device: str = "auto",
        dtype: str = "float32",
    ):
        self.version = version_of(model, revision)
        self.device, torch_dtype = pick_device(device), pick_dtype(dtype)
        if processor is None:
            processor, processor_revision = model, revision
        # PIL's resize is the one the published scores were made with; torchvision's differs by up to 0.015.
        self.processor = load(CLIPImageProcessorPil, processor, processor_revision)
        self.clip = CLIP(model, self.device, torch_dtype, processor, revision, processor_revision)

    @torch.no_grad()
    def score(self, prompts: Sequence[str], images: Tensor) -> Tensor:
        return self._judge(prompts, self._pixels(images)).cpu()

    @torch.no_grad()
    def embed(self, images: Tensor) -> Tensor:
        """Unit image features (B, D); see `EmbedsImages`."""
        return self.clip.images(self._pixels(images)).cpu()

    def _prepare(self, images: Tensor) -> Tensor:
        return processed_with_gradients(images, self.processor)

    def _judge(self, prompts: Sequence[str], pixels: Tensor) -> Tensor:
        return self.clip.logit_scale * self.clip.cosine(prompts, pixels)

    def _pixels(self, images: Tensor) -> Tensor:
        return self.processor(to_pil(images), return_tensors="pt").pixel_values


def processed_with_gradients(images: Tensor, processor: CLIPImageProcessorPil) -> Tensor:
    """What a processor makes of images (B, 3, H, W) in [0, 1], without rounding and on their device.

    Raises:
        UserError: it does not do what CLIP's do: shortest side with a bicubic filter, centre crop within it.
    """
    size, height, width = processor.size, processor.crop_size["height"], processor.crop_size["width"]
    steps = processor.do_resize, processor.do_center_crop, processor.do_rescale, processor.do_normalize
    usual = all(steps) and processor.resample == Resampling.BICUBIC and not size.longest_edge
    if not usual or (size.shortest_edge or 0) < max(height, width):
        raise UserError("the metric's image processor prepares images in another way than CLIP's: no gradients for it")
    sides = shortest_side(images, size.shortest_edge)
    top, left = (sides[0] - height) // 2, (sides[1] - width) // 2
    pixels = bicubic(images, sides, clip=True)[..., top : top + height, left : left + width]
    return normalize(pixels * (255 * processor.rescale_factor), list(processor.image_mean), list(processor.image_std))
