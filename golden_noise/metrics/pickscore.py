"""PickScore (Kirstain et al. 2023, arXiv 2305.01569): scaled cosine similarity of a CLIP tuned on human preferences."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

from golden_noise.errors import UserError
from golden_noise.pipelines.loading import first_line, pick_device
from golden_noise.weights import locate


class PickScore:
    """exp(logit_scale) * cos(text, image); about 20 to 23 with the published weights.

    Args:
        model: folder or hub id of the CLIP weights.
        processor: folder or hub id of its tokenizer and image processor, the model's own by default.
        revision: commit or tag on the hub.
    """

    range = (-100.0, 100.0)  # CLIP caps exp(logit_scale) at 100

    def __init__(self, model: str, processor: str | None = None, revision: str | None = None, device: str = "auto"):
        self.version = f"{Path(model).name}@{revision or 'main'}"
        self.device = pick_device(device)
        model, processor = (locate(source, "metric.*.model") for source in (model, processor or model))
        try:
            # PIL's resize is the one the published scores were made with; torchvision's differs by up to 0.015.
            self.image_processor = CLIPImageProcessorPil.from_pretrained(processor)
            self.tokenizer = AutoTokenizer.from_pretrained(processor)
            self.model = CLIPModel.from_pretrained(model, revision=revision, dtype=torch.float32)
        except (OSError, ValueError) as error:
            raise UserError(f"cannot load the metric's weights {model}: {first_line(error)}") from error
        self.model.eval().to(self.device)

    @torch.inference_mode()
    def score(self, prompts: Sequence[str], images: Tensor) -> Tensor:
        """Scores (B,) float32; see `Metric`. Images are rounded to 8 bits, as saved images would be."""
        texts = list(dict.fromkeys(prompts))
        which = torch.tensor([texts.index(prompt) for prompt in prompts], device=self.device)
        text = self._text_features(texts)[which]
        image = self._image_features(images)
        cosine = (text * image).sum(-1) / (text.norm(dim=-1) * image.norm(dim=-1))
        return (self.model.logit_scale.exp() * cosine).float().cpu()

    @torch.inference_mode()
    def embed(self, images: Tensor) -> Tensor:
        """Image features (B, D); see `EmbedsImages`."""
        return self._image_features(images).float().cpu()

    def _text_features(self, texts: list[str]) -> Tensor:
        length = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        return self.model.get_text_features(**tokens.to(self.device)).pooler_output

    def _image_features(self, images: Tensor) -> Tensor:
        pixels = (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        inputs = self.image_processor(list(pixels), return_tensors="pt", input_data_format="channels_last")
        return self.model.get_image_features(inputs.pixel_values.to(self.device)).pooler_output
