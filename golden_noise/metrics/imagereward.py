"""ImageReward v1.0 (Xu et al. 2023, arXiv 2304.05977): BLIP, tuned on human rankings, judges image and prompt."""

from collections.abc import Sequence
from math import isqrt

import torch
from torch import Tensor
from transformers import AutoTokenizer, BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

from golden_noise.device import pick_device
from golden_noise.errors import UserError
from golden_noise.metrics.clip import clip_pixels, clip_pixels_with_gradients
from golden_noise.metrics.gradients import GivesGradients
from golden_noise.metrics.head import fold_head
from golden_noise.metrics.limits import count_cut
from golden_noise.metrics.loading import build, find_file, load, part, pick_dtype, read_tensors, rename, version_of

MEAN, STD = 0.16717362830052426, 1.0333394966054072  # of the raw scores, as published
TOKENS = 35
HEAD_WIDTH = 64  # of attention, in both halves: the one size that the tensors' shapes do not give

# BLIP's own names for the image half and those of transformers, applied in this order.
RENAMED = (
    (r"^cls_token", "embeddings.class_embedding"),
    (r"^pos_embed", "embeddings.position_embedding"),
    (r"^patch_embed\.proj", "embeddings.patch_embedding"),
    (r"^blocks", "encoder.layers"),
    (r"\.norm(\d)", r".layer_norm\1"),
    (r"\.attn\.qkv", ".self_attn.qkv"),
    (r"\.attn\.proj", ".self_attn.projection"),
    (r"^norm\.", "post_layernorm."),
)


class ImageReward(GivesGradients):
    """Reward with mean 0 and variance 1 over the authors' images; tables often show it times 100.

    Args:
        weights: the published file: a path, or ORG/NAME/FILE on the hub.
        tokenizer: folder or hub id of BERT's uncased tokenizer.
    """

    range = (-float("inf"), float("inf"))
    limit = TOKENS

    def __init__(
        self,
        weights: str,
        tokenizer: str,
        revision: str | None = None,
        tokenizer_revision: str | None = None,
        device: str = "auto",
        dtype: str = "float32",
    ):
        self.version = version_of(weights, revision)
        self.device, self.dtype = pick_device(device), pick_dtype(dtype)
        self.tokenizer = load(AutoTokenizer, tokenizer, tokenizer_revision)
        tensors = read_tensors(find_file(weights, revision))
        image, text, head = (part(tensors, prefix) for prefix in ("blip.visual_encoder.", "blip.text_encoder.", "mlp."))
        text.pop("embeddings.position_ids", None)  # only counts from 0
        image = {rename(name, RENAMED): tensor for name, tensor in image.items()}
        try:
            configs = image_config(image), text_config(text)
        except KeyError as error:
            raise UserError(f"{weights} holds no weights of ImageReward: {error.args[0]} is missing") from error
        self.weight, self.bias = fold_head(head, weights)
        self.image_model = build(BlipVisionModel, configs[0], image, weights)
        self.text_model = build(BlipTextModel, configs[1], text, weights, add_pooling_layer=False)
        for model in (self.image_model, self.text_model):
            model.eval().requires_grad_(False).to(self.device, self.dtype)

    @torch.no_grad()
    def score(self, prompts: Sequence[str], images: Tensor) -> Tensor:
        pixels = clip_pixels(images, self.image_model.config.image_size)
        return self._rate(self._read(prompts, pixels).cpu())

    def _prepare(self, images: Tensor) -> Tensor:
        return clip_pixels_with_gradients(images, self.image_model.config.image_size)

    def _judge(self, prompts: Sequence[str], pixels: Tensor) -> Tensor:
        return self._rate(self._read(prompts, pixels))

    def _read(self, prompts: Sequence[str], pixels: Tensor) -> Tensor:
        """Features (B, D) float32 of prompts, read with an eye on the pixels."""
        tokens = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
        ).to(self.device)
        seen = self.image_model(pixels.to(self.device, self.dtype)).last_hidden_state
        judged = self.text_model(
            tokens.input_ids, attention_mask=tokens.attention_mask, encoder_hidden_states=seen
        ).last_hidden_state[:, 0]
        return judged.float()

    def _rate(self, features: Tensor) -> Tensor:
        """Rewards (B,) of features (B, D), on their device."""
        return (features @ self.weight.to(features.device) + self.bias.to(features.device) - MEAN) / STD

    def cut(self, prompts: Sequence[str]) -> int:
        return count_cut(self.tokenizer, prompts, self.limit)


def _layers(tensors: dict[str, Tensor], prefix: str) -> int:
    return len({name.split(".")[2] for name in tensors if name.startswith(prefix)})


def image_config(tensors: dict[str, Tensor]) -> BlipVisionConfig:
    """The config that fits the tensors of the image half, ViT-L/16 as published."""
    patch_embedding = tensors["embeddings.patch_embedding.weight"]
    patch = patch_embedding.shape[-1]
    patches = tensors["embeddings.position_embedding"].shape[1] - 1
    return BlipVisionConfig(
        hidden_size=patch_embedding.shape[0],
        intermediate_size=tensors["encoder.layers.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=_layers(tensors, "encoder.layers."),
        num_attention_heads=patch_embedding.shape[0] // HEAD_WIDTH,
        image_size=isqrt(patches) * patch,
        patch_size=patch,
        layer_norm_eps=1e-6,  # BLIP's; transformers has another default
    )


def text_config(tensors: dict[str, Tensor]) -> BlipTextConfig:
    """The config that fits the tensors of the text half, BERT base with attention to the image as published."""
    words, width = tensors["embeddings.word_embeddings.weight"].shape
    return BlipTextConfig(
        vocab_size=words,
        hidden_size=width,
        encoder_hidden_size=tensors["encoder.layer.0.crossattention.self.key.weight"].shape[1],
        intermediate_size=tensors["encoder.layer.0.intermediate.dense.weight"].shape[0],
        num_hidden_layers=_layers(tensors, "encoder.layer."),
        num_attention_heads=width // HEAD_WIDTH,
        max_position_embeddings=tensors["embeddings.position_embeddings.weight"].shape[0],
    )
