"""GenEval's rules (arXiv 2310.11513) with detectors that still install: Mask2Former and CLIP from transformers."""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import Mask2FormerForUniversalSegmentation, Mask2FormerImageProcessorPil

from golden_noise.device import pick_device
from golden_noise.errors import UserError
from golden_noise.images import from_pil, to_pil
from golden_noise.metrics.clip import CLIP, clip_pixels
from golden_noise.metrics.geneval_tasks import COLORS, NAMES, Instance, fulfils, parse
from golden_noise.metrics.loading import load, pick_dtype, version_of

TEMPLATES = ("a photo of a {color} {name}", "a photo of a {color}-colored {name}", "a photo of a {color} object")
LOWEST_CONFIDENCE = 0.3
GREY = "#999999"  # around an object whose color is judged


class GenEval:
    """1 for an image that does what its GenEval prompt asks for, else 0.

    The prompt itself says what to look for, so GenEval's metadata are not needed. Not the original: that used the same
    Mask2Former (Swin-S) from MMDetection 2, other code with other weights. Its scores differ, so do not mix them in a
    table. Rules, thresholds and the image sizes are GenEval's.

    Args:
        detector: folder or hub id of a Mask2Former for COCO's 80 classes.
        clip: folder or hub id of the CLIP that names colors.
        side: shortest side of the images that the detector sees; the longest is at most 5/3 of it.
        batch_size: images that the detector sees at once.
        dtype: of CLIP; float32, float16 or bfloat16. The detector always runs in float32.
    """

    range = (0.0, 1.0)

    def __init__(
        self,
        detector: str,
        clip: str,
        revision: str | None = None,
        clip_revision: str | None = None,
        side: int = 800,
        batch_size: int = 8,
        device: str = "auto",
        dtype: str = "float32",
    ):
        self.version = version_of(detector, revision)
        self.device, clip_dtype = pick_device(device), pick_dtype(dtype)
        self.size, self.batch_size = {"shortest_edge": side, "longest_edge": side * 5 // 3}, batch_size
        self.processor = load(Mask2FormerImageProcessorPil, detector, revision)
        self.detector = load(Mask2FormerForUniversalSegmentation, detector, revision, dtype=torch.float32)
        if self.detector.config.num_labels != len(NAMES):
            raise UserError(f"{detector} knows {self.detector.config.num_labels} classes, GenEval needs COCO's 80")
        self.detector.eval().to(self.device)
        self.clip = CLIP(clip, self.device, clip_dtype, revision=clip_revision)
        self._palettes: dict[str, Tensor] = {}

    def score(self, prompts: Sequence[str], images: Tensor) -> Tensor:
        """See `Metric`.

        Raises:
            UserError: a prompt is not one of GenEval's.
        """
        tasks, pictures = [parse(prompt) for prompt in prompts], to_pil(images)
        cases = zip(tasks, pictures, self.detect(pictures), strict=True)
        return torch.tensor([float(fulfils(task, seen, partial(self.color_of, image))) for task, image, seen in cases])

    @torch.inference_mode()
    def detect(self, pictures: Sequence[Image.Image]) -> list[list[Instance]]:
        """What the detector finds with confidence above `LOWEST_CONFIDENCE` in pictures of one size."""
        segmented = []
        for start in range(0, len(pictures), self.batch_size):
            batch = pictures[start : start + self.batch_size]
            inputs = self.processor(list(batch), size=self.size, return_tensors="pt").to(self.device)
            outputs = self.detector(pixel_values=inputs.pixel_values, pixel_mask=inputs.pixel_mask)
            for name in ("class_queries_logits", "masks_queries_logits"):
                outputs[name] = outputs[name].cpu()  # what follows mixes them with tensors on the CPU
            segmented += self.processor.post_process_instance_segmentation(
                outputs,
                threshold=LOWEST_CONFIDENCE,
                target_sizes=[picture.size[::-1] for picture in batch],
                return_binary_maps=True,
            )
        return [
            # `map`, since without any instance the second is longer
            list(map(as_instance, picture["segments_info"], picture["segmentation"]))
            for picture in segmented
        ]

    def color_of(self, picture: Image.Image, detected: Instance) -> str:
        """The color that CLIP sees in an object, cut out along its mask."""
        alone = Image.composite(picture, Image.new("RGB", picture.size, GREY), Image.fromarray(detected.mask))
        features = self.clip.images(clip_pixels(from_pil([alone.crop(detected.box)]), self.clip.size))
        return COLORS[int((features @ self._palette(detected.name).T).argmax())]

    def _palette(self, name: str) -> Tensor:
        """Unit vectors (10, D) of the colors of one class of objects: the mean over all templates."""
        if name not in self._palettes:
            texts = [template.format(color=color, name=name) for color in COLORS for template in TEMPLATES]
            features = self.clip.texts(texts).unflatten(0, (len(COLORS), len(TEMPLATES)))
            self._palettes[name] = F.normalize(features.mean(dim=1), dim=-1)
        return self._palettes[name]


def as_instance(segment: dict, mask: Tensor) -> Instance:
    """A segment of the detector with its mask (H, W) of 0 and 1; the box is the smallest that holds the mask."""
    inside = mask.bool()
    rows, columns = (inside.any(dim=axis).nonzero().flatten().tolist() for axis in (1, 0))
    box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    return Instance(NAMES[segment["label_id"]], segment["score"], box, inside.numpy())
