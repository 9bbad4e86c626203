"""Multi-dimensional Preference Score (Zhang et al. 2024, arXiv 2405.14705): CLIP tokens, fused under a condition."""

import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPImageProcessorPil

from golden_noise.device import pick_device
from golden_noise.errors import UserError
from golden_noise.images import to_pil
from golden_noise.metrics.clip import CLIP, ReadsCLIPTokens
from golden_noise.metrics.loading import fill, find_file, load, part, pick_dtype, read_tensors, version_of

COUNTERS = (".position_ids", ".inv_freq", ".pos_emb")  # buffers of older libraries; they only count from 0


class MPS(ReadsCLIPTokens):
    """exp(logit_scale) * cos(text, image), the image seen through those words of the text that the condition is about.

    A word counts if its similarity to the condition exceeds `threshold` times that of the text's most similar word.
    The published code divides by the largest similarity of the whole batch and scores one image at a time; dividing
    per text gives the same scores in batches of any size.

    Args:
        weights: the weights as plain tensors: a path, or ORG/NAME/FILE on the hub. (The authors' own file is a pickled
            module, which this project does not open.)
        model: folder or hub id of the CLIP whose config, tokenizer and image processor belong to them.
        condition: what to judge by.
        threshold: 0.3 in the authors' evaluation, 0.01 in their training.
    """

    range = (-100.0, 100.0)  # CLIP caps exp(logit_scale) at 100

    def __init__(
        self,
        weights: str,
        model: str,
        condition: str,
        threshold: float = 0.3,
        revision: str | None = None,
        model_revision: str | None = None,
        device: str = "auto",
        dtype: str = "float32",
    ):
        self.version, self.threshold = version_of(weights, revision), threshold
        torch_device, torch_dtype = pick_device(device), pick_dtype(dtype)
        self.processor = load(CLIPImageProcessorPil, model, model_revision)
        tensors = read_tensors(find_file(weights, revision))
        tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(COUNTERS)}
        self.fusion = load_fusion(part(tensors, "cross_model."), weights).eval().to(torch_device, torch_dtype)
        self.clip = CLIP(model, torch_device, torch_dtype, revision=model_revision, tensors=part(tensors, "model."))
        self.condition = self._texts([condition])[0][0]

    @torch.inference_mode()
    def score(self, prompts: Sequence[str], images: Tensor) -> Tensor:
        pixels = self.processor(to_pil(images), return_tensors="pt").pixel_values
        seen = self.clip.model.vision_model(pixels.to(self.clip.device, self.clip.dtype)).last_hidden_state
        words, summary = self._texts(prompts)
        fused = self.fusion(self.clip.model.visual_projection(seen), words, self._relevant(words))[:, 0]
        return self.clip.logit_scale * F.cosine_similarity(summary.float(), fused.float()).cpu()

    @torch.inference_mode()
    def _texts(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Projected features of every token (B, L, D), padding included as in the original, and of the last (B, D)."""
        features = self.clip.model.text_model(input_ids=self.clip.tokens(prompts).input_ids)
        project = self.clip.model.text_projection
        return project(features.last_hidden_state), project(features.pooler_output)

    def _relevant(self, words: Tensor) -> Tensor:
        """Which tokens (B, L) of (B, L, D) are about the condition."""
        similarity = (words @ self.condition.T).amax(-1)
        return similarity / similarity.amax(-1, keepdim=True) > self.threshold


class SwiGLU(nn.Module):
    """The first half of the features times the SiLU of the second (Shazeer 2020, arXiv 2002.05202)."""

    def forward(self, x: Tensor) -> Tensor:
        value, gate = x.chunk(2, dim=-1)
        return value * F.silu(gate)


class CrossAttention(nn.Module):
    """Image tokens attend to text tokens, beside a feed-forward branch. Names as in the published weights."""

    def __init__(self, width: int, heads: int, head_width: int, inner: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, heads * head_width, bias=False)
        self.to_kv = nn.Linear(width, 2 * head_width, bias=False)
        self.to_out = nn.Linear(heads * head_width, width, bias=False)
        self.ff = nn.Sequential(nn.Linear(width, 2 * inner, bias=False), SwiGLU(), nn.Linear(inner, width, bias=False))

    def forward(self, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """(B, N, width) from x (B, N, width) and the tokens of context (B, L, width) that mask (B, L) lets pass."""
        x = self.norm(x)
        key, value = self.to_kv(context).chunk(2, dim=-1)
        query = split_heads(self.to_q(x), key.shape[-1])
        return self.to_out(attend(query, key, value, mask[:, None, None])) + self.ff(x)


class SelfAttention(nn.Module):
    """Image tokens attend to each other with rotary positions, beside a feed-forward branch that shares the input."""

    def __init__(self, width: int, heads: int, head_width: int, inner: int):
        super().__init__()
        self.sizes = (heads * head_width, head_width, head_width, 2 * inner)
        self.norm = nn.LayerNorm(width)
        self.fused_attn_ff_proj = nn.Linear(width, sum(self.sizes), bias=False)
        self.attn_out = nn.Linear(heads * head_width, width, bias=False)
        self.ff_out = nn.Sequential(SwiGLU(), nn.Linear(inner, width, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) from x (B, N, width)."""
        query, key, value, ff = self.fused_attn_ff_proj(self.norm(x)).split(self.sizes, dim=-1)
        query = rotate(split_heads(query, key.shape[-1]))
        return self.attn_out(attend(query, rotate(key), value)) + self.ff_out(ff)


class Fusion(nn.Module):
    """Layers of cross- and self-attention, each added to what it gets."""

    def __init__(self, layers: int, width: int, heads: int, head_width: int, inner: int):
        super().__init__()
        self.cross = nn.ModuleList(CrossAttention(width, heads, head_width, inner) for _ in range(layers))
        self.own = nn.ModuleList(SelfAttention(width, heads, head_width, inner) for _ in range(layers))

    def forward(self, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """(B, N, width) from image tokens (B, N, width), text tokens (B, L, width) and their mask (B, L)."""
        for cross, own in zip(self.cross, self.own, strict=True):
            x = x + cross(x, context, mask)
            x = x + own(x)
        return x


def split_heads(x: Tensor, head_width: int) -> Tensor:
    """(B, N, heads * head_width) to (B, heads, N, head_width)."""
    return x.unflatten(-1, (-1, head_width)).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """(B, N, heads * width): query (B, heads, N, width) attends to one key and value (B, L, width) for all heads."""
    key, value = (each[:, None].expand(-1, query.shape[1], -1, -1) for each in (key, value))
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)


def rotate(x: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021, arXiv 2104.09864) of (..., N, width): the two halves turn as planes."""
    width = x.shape[-1]
    speed = 10000 ** (-torch.arange(0, width, 2, device=x.device, dtype=torch.float32) / width)
    angle = torch.arange(x.shape[-2], device=x.device, dtype=torch.float32)[:, None] * speed
    first, second = x.float().chunk(2, dim=-1)
    turned = (first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin())
    return torch.cat(turned, dim=-1).to(x.dtype)


def load_fusion(tensors: dict[str, Tensor], source: str) -> Fusion:
    """The fusion layers of the published `cross_model.*` tensors, with the sizes that those have.

    Raises:
        UserError: they are not such tensors.
    """
    named = {}
    for name, tensor in tensors.items():
        # layers.LAYER.0.fn.LEAF attends to the text, layers.LAYER.1.fn.LEAF to the image itself.
        named[re.sub(r"^layers\.(\d+)\.([01])\.fn", lambda m: f"{('cross', 'own')[int(m[2])]}.{m[1]}", name)] = tensor
    try:
        head_width = named["cross.0.to_kv.weight"].shape[0] // 2
        heads_width, width = named["cross.0.to_q.weight"].shape
        inner = named["cross.0.ff.2.weight"].shape[1]
    except KeyError as error:
        raise UserError(f"{source} holds no weights of MPS: cross_model lacks {error.args[0]}") from error
    layers = len({name.split(".")[1] for name in named})
    fusion = Fusion(layers, width, heads_width // head_width, head_width, inner)
    fill(fusion, named, source)
    return fusion
