"""CLIP (Radford et al. 2021, arXiv 2103.00020) as metrics use it: unit features of prompts and of images."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2.functional import center_crop, normalize
from transformers import AutoTokenizer, BatchEncoding, CLIPConfig, CLIPModel

from golden_noise.images import to_pil
from golden_noise.metrics.bicubic import bicubic
from golden_noise.metrics.limits import count_cut
from golden_noise.metrics.loading import build, load, rename

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

# open_clip's names and those of transformers, applied in this order.
RENAMED = (
    (r"^visual\.conv1", "vision_model.embeddings.patch_embedding"),
    (r"^visual\.class_embedding", "vision_model.embeddings.class_embedding"),
    (r"^visual\.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    (r"^visual\.ln_pre", "vision_model.pre_layrnorm"),
    (r"^visual\.ln_post", "vision_model.post_layernorm"),
    (r"^visual\.proj$", "visual_projection.weight"),
    (r"^visual\.transformer\.resblocks", "vision_model.encoder.layers"),
    (r"^transformer\.resblocks", "text_model.encoder.layers"),
    (r"^token_embedding", "text_model.embeddings.token_embedding"),
    (r"^positional_embedding", "text_model.embeddings.position_embedding.weight"),
    (r"^ln_final", "text_model.final_layer_norm"),
    (r"^text_projection$", "text_projection.weight"),
    (r"\.ln_(\d)", r".layer_norm\1"),
    (r"\.mlp\.c_fc", ".mlp.fc1"),
    (r"\.mlp\.c_proj", ".mlp.fc2"),
    (r"\.attn\.", ".self_attn."),
)


class CLIP:
    """A CLIP model with its tokenizer. Its weights are frozen; gradients pass from features to pixels.

    Args:
        model: folder or hub id in the layout of transformers.
        tokenizer: folder or hub id of its tokenizer, the model's own by default.
        tensors: weights to use instead of the model's, of which then only the config is loaded.

    Raises:
        UserError: one of them is missing, or the weights do not fit the model.
    """

    def __init__(
        self,
        model: str,
        device: torch.device,
        dtype: torch.dtype,
        tokenizer: str | None = None,
        revision: str | None = None,
        tokenizer_revision: str | None = None,
        tensors: dict[str, Tensor] | None = None,
    ):
        self.tokenizer = load(AutoTokenizer, tokenizer or model, tokenizer_revision if tokenizer else revision)
        if tensors is None:
            self.model = load(CLIPModel, model, revision, dtype=torch.float32)
        else:
            config = load(CLIPConfig, model, revision)
            self.model = build(CLIPModel, config, tensors, "the metric's file of weights")
        self.device, self.dtype = device, dtype
        self.size: int = self.model.config.vision_config.image_size
        self.limit: int = self.model.config.text_config.max_position_embeddings
        self.model.eval().requires_grad_(False).to(device, dtype)

    @property
    def logit_scale(self) -> float:
        """The factor exp(logit_scale) that CLIP's loss puts on cosines, at most 100."""
        return self.model.logit_scale.float().exp().item()

    def cosine(self, prompts: Sequence[str], pixels: Tensor) -> Tensor:
        """Cosine similarities (B,) float32 of prompts and pixels (B, 3, size, size), pair by pair; see `images`."""
        return (self.texts(prompts) * self.images(pixels)).sum(-1)

    @torch.no_grad()  # tensors of inference mode could not enter a graph
    def texts(self, prompts: Sequence[str]) -> Tensor:
        """Unit vectors (B, D) float32 of prompts; those that repeat are encoded once."""
        distinct = list(dict.fromkeys(prompts))
        which = torch.tensor([distinct.index(prompt) for prompt in prompts], device=self.device)
        features = self.model.get_text_features(**self.tokens(distinct)).pooler_output
        return F.normalize(features.float(), dim=-1)[which]

    def images(self, pixels: Tensor) -> Tensor:
        """Unit vectors (B, D) float32 of normalised pixels (B, 3, size, size), to which gradients pass."""
        features = self.model.get_image_features(pixels.to(self.device, self.dtype)).pooler_output
        return F.normalize(features.float(), dim=-1)

    def tokens(self, prompts: Sequence[str]) -> BatchEncoding:
        """Tokens of prompts, cut and padded to the model's length."""
        tokens = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=self.limit, return_tensors="pt"
        )
        return tokens.to(self.device)


class ReadsCLIPTokens:
    """A metric that reads as much of a prompt as its CLIP does; see `CutsPrompts`."""

    clip: CLIP

    @property
    def limit(self) -> int:
        """Tokens that are read."""
        return self.clip.limit

    def cut(self, prompts: Sequence[str]) -> int:
        """How many prompts are longer."""
        return count_cut(self.clip.tokenizer, prompts, self.limit)


def clip_pixels(images: Tensor, size: int) -> Tensor:
    """Pixels (B, 3, size, size) as OpenAI's CLIP and open_clip prepare images (B, 3, H, W) in [0, 1].

    Rounded to 8 bits, as saved images would be; shortest side to `size` with PIL's bicubic filter; centre crop.
    """
    prepare = v2.Compose(
        [
            v2.Resize(size, InterpolationMode.BICUBIC),
            v2.CenterCrop(size),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    return torch.stack([prepare(image) for image in to_pil(images)])


def clip_pixels_with_gradients(images: Tensor, size: int) -> Tensor:
    """`clip_pixels` without rounding, on the images' device."""
    pixels = bicubic(images, shortest_side(images, size), clip=True)
    return normalize(center_crop(pixels, [size, size]), list(MEAN), list(STD))


def shortest_side(images: Tensor, size: int) -> tuple[int, int]:
    """Height and width of images (..., H, W) whose shortest side becomes `size`; PIL's users round the other down."""
    height, width = images.shape[-2:]
    if height < width:
        return size, int(size * width / height)
    return int(size * height / width), size


def from_open_clip(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of an open_clip model under the names and in the layout of transformers' `CLIPModel`."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        name = rename(name, RENAMED)
        if name.endswith("_projection.weight"):
            renamed[name] = tensor.T.contiguous()  # open_clip multiplies from the left
        elif ".in_proj_" in name:
            for part, chunk in zip("qkv", tensor.chunk(3), strict=True):
                renamed[name.replace("in_proj_", f"{part}_proj.")] = chunk.contiguous()
        else:
            renamed[name] = tensor
    return renamed
