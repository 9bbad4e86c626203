"""LAION's aesthetic predictor (Schuhmann 2022): a linear rating of CLIP's view of an image, whatever the prompt."""

from collections.abc import Sequence

import torch
from torch import Tensor

from golden_noise.device import pick_device
from golden_noise.metrics.clip import CLIP, clip_pixels, clip_pixels_with_gradients
from golden_noise.metrics.gradients import GivesGradients
from golden_noise.metrics.head import fold_head
from golden_noise.metrics.loading import find_file, pick_dtype, read_tensors, version_of


class AES(GivesGradients):
    """Aesthetic rating, trained on ratings from 1 to 10; about 5.5 for images from Stable Diffusion XL.

    Args:
        weights: the published head: a path, ORG/NAME/FILE on the hub, or an https URL.
        model: folder or hub id of the CLIP that it was trained on, in the layout of transformers.
        sha256: checksum of weights from a URL.
    """

    range = (-float("inf"), float("inf"))  # linear, so nothing keeps it between 1 and 10

    def __init__(
        self,
        weights: str,
        model: str,
        revision: str | None = None,
        model_revision: str | None = None,
        sha256: str | None = None,
        device: str = "auto",
        dtype: str = "float32",
    ):
        self.version = sha256[:8] if sha256 else version_of(weights, revision)
        self.device, torch_dtype = pick_device(device), pick_dtype(dtype)
        self.weight, self.bias = fold_head(read_tensors(find_file(weights, revision, sha256)), weights)
        self.clip = CLIP(model, self.device, torch_dtype, revision=model_revision)

    @torch.no_grad()
    def score(self, prompts: Sequence[str], images: Tensor) -> Tensor:
        return self._rate(self.clip.images(clip_pixels(images, self.clip.size)).cpu())

    def _prepare(self, images: Tensor) -> Tensor:
        return clip_pixels_with_gradients(images, self.clip.size)

    def _judge(self, prompts: Sequence[str], pixels: Tensor) -> Tensor:
        return self._rate(self.clip.images(pixels))

    def _rate(self, features: Tensor) -> Tensor:
        """Ratings (B,) of features (B, D), on their device."""
        return features @ self.weight.to(features.device) + self.bias.to(features.device)
