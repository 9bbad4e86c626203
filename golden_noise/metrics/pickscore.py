"""PickScore (Kirstain et al. 2023, arXiv 2305.01569): scaled cosine similarity of a CLIP tuned on human preferences."""

from collections.abc import Sequence

from torch import Tensor
from transformers import CLIPImageProcessorPil

from golden_noise.device import pick_device
from golden_noise.images import to_pil
from golden_noise.metrics.clip import CLIP, ReadsCLIPTokens
from golden_noise.metrics.loading import load, pick_dtype, version_of


class PickScore(ReadsCLIPTokens):
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
        torch_device, torch_dtype = pick_device(device), pick_dtype(dtype)
        if processor is None:
            processor, processor_revision = model, revision
        # PIL's resize is the one the published scores were made with; torchvision's differs by up to 0.015.
        self.processor = load(CLIPImageProcessorPil, processor, processor_revision)
        self.clip = CLIP(model, torch_device, torch_dtype, processor, revision, processor_revision)

    def score(self, prompts: Sequence[str], images: Tensor) -> Tensor:
        return self.clip.logit_scale * self.clip.cosine(prompts, self._pixels(images))

    def embed(self, images: Tensor) -> Tensor:
        """Unit image features (B, D); see `EmbedsImages`."""
        return self.clip.images(self._pixels(images)).cpu()

    def _pixels(self, images: Tensor) -> Tensor:
        return self.processor(to_pil(images), return_tensors="pt").pixel_values
