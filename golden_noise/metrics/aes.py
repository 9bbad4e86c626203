"""LAION's aesthetic predictor (Schuhmann 2022): a linear rating of CLIP's view of an image, whatever the prompt."""

from collections.abc import Sequence

from torch import Tensor

from golden_noise.device import pick_device
from golden_noise.hub import locate
from golden_noise.metrics.clip import CLIP, clip_pixels
from golden_noise.metrics.head import fold_head
from golden_noise.metrics.loading import find_file, pick_dtype, read_tensors, version_of


class AES:
    """Aesthetic rating, trained on ratings from 1 to 10; about 5.5 for images from Stable Diffusion XL.

    Args:
        weights: the published head: a path, ORG/NAME/FILE on the hub, or an https URL.
        model: folder or hub id of the CLIP that it was trained on, in the layout of transformers.
        revision: commit or tag of the weights on the hub.
        model_revision: likewise of the model.
        sha256: checksum of weights from a URL.
        dtype: float32, or float16 or bfloat16 to save memory.
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
        place, kind, model = pick_device(device), pick_dtype(dtype), locate(model, "metric.*.model")
        self.weight, self.bias = fold_head(read_tensors(find_file(weights, revision, sha256)), weights)
        self.clip = CLIP(model, place, kind, revision=model_revision)

    def score(self, prompts: Sequence[str], images: Tensor) -> Tensor:
        """Scores (B,) float32; see `Metric`."""
        features = self.clip.images(clip_pixels(images, self.clip.size))
        return features.cpu() @ self.weight + self.bias
