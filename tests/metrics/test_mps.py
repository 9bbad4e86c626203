"""MPS against its fusion computed by hand with the published names."""

import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import CLIPImageProcessorPil, CLIPModel

from golden_noise.errors import UserError
from golden_noise.images import to_pil
from golden_noise.metrics.mps import MPS

PROMPTS = ["a red circle", "two crosses", "a blue square left of a green triangle", "a red circle"]
CONDITION = "red, blue"


@pytest.fixture(scope="module")
def metric(mps_weights, clip):
    return MPS(str(mps_weights), str(clip), CONDITION, device="cpu")


def norm(tensors, name, x):
    return F.layer_norm(x, x.shape[-1:], tensors[f"{name}.norm.weight"])


def turned(x):
    """Rotary positions: pair (x_i, x_{i + w/2}) at place n turns by n / 10000^(2i/w)."""
    width, out = x.shape[-1], x.clone()
    for n in range(x.shape[-2]):
        for i in range(width // 2):
            angle = n / 10000 ** (2 * i / width)
            a, b = x[..., n, i], x[..., n, i + width // 2]
            out[..., n, i] = a * math.cos(angle) - b * math.sin(angle)
            out[..., n, i + width // 2] = b * math.cos(angle) + a * math.sin(angle)
    return out


def gated(x):
    return x.chunk(2, -1)[0] * F.silu(x.chunk(2, -1)[1])


def fuse(tensors, x, words, allowed):
    """One sample: image tokens x (N, D), text tokens (L, D), allowed (L) bool."""
    for i in (0, 1):
        name = f"cross_model.layers.{i}.0.fn"
        y = norm(tensors, name, x)
        key, value = (words @ tensors[f"{name}.to_kv.weight"].T).chunk(2, -1)
        heads = []
        for query in (y @ tensors[f"{name}.to_q.weight"].T).split(8, -1):
            logits = (query @ key.T / math.sqrt(8)).masked_fill(~allowed, float("-inf"))
            heads.append(logits.softmax(-1) @ value)
        ff = gated(y @ tensors[f"{name}.ff.0.weight"].T) @ tensors[f"{name}.ff.2.weight"].T
        x = x + torch.cat(heads, -1) @ tensors[f"{name}.to_out.weight"].T + ff
        name = f"cross_model.layers.{i}.1.fn"
        y = norm(tensors, name, x) @ tensors[f"{name}.fused_attn_ff_proj.weight"].T
        queries, key, value, ff = y.split([24, 8, 8, 80], -1)
        heads = [(turned(q) @ turned(key).T / math.sqrt(8)).softmax(-1) @ value for q in queries.split(8, -1)]
        x = x + torch.cat(heads, -1) @ tensors[f"{name}.attn_out.weight"].T
        x = x + gated(ff) @ tensors[f"{name}.ff_out.1.weight"].T
    return x


@torch.no_grad()
def by_hand(metric, mps_weights, clip, prompts, images, threshold):
    tensors, model = load_file(mps_weights), CLIPModel.from_pretrained(clip).eval()

    def texts(prompts):
        found = model.text_model(input_ids=metric.clip.tokens(prompts).input_ids)
        return model.text_projection(found.last_hidden_state), model.text_projection(found.pooler_output)

    pixels = CLIPImageProcessorPil.from_pretrained(clip)(to_pil(images), return_tensors="pt").pixel_values
    seen = model.visual_projection(model.vision_model(pixels).last_hidden_state)
    condition, (words, summary) = texts([CONDITION])[0][0], texts(prompts)
    scores = []
    for x, y, z in zip(seen, words, summary, strict=True):
        similarity = torch.tensor([max(float(word @ other) for other in condition) for word in y])
        fused = fuse(tensors, x, y, similarity / similarity.max() > threshold)[0]
        scores.append(model.logit_scale.exp() * (fused @ z) / (fused.norm() * z.norm()))
    return torch.stack(scores)


def test_is_the_fusion_by_hand(metric, mps_weights, clip, images):
    scores = metric.score(PROMPTS, images)
    expected = by_hand(metric, mps_weights, clip, PROMPTS, images, threshold=0.3)
    torch.testing.assert_close(scores, expected, atol=1e-3, rtol=1e-4)
    assert scores.std() > 1e-2


def test_the_threshold_decides_which_words_count(metric, mps_weights, clip, images):
    strict = MPS(str(mps_weights), str(clip), CONDITION, threshold=0.999, device="cpu")
    words = metric._texts(PROMPTS)[0]
    assert (strict._relevant(words).sum(-1) < metric._relevant(words).sum(-1)).any()
    assert strict._relevant(words).any(-1).all()  # the most similar word is always let through
    expected = by_hand(metric, mps_weights, clip, PROMPTS, images, threshold=0.999)
    torch.testing.assert_close(strict.score(PROMPTS, images), expected, atol=1e-3, rtol=1e-4)


def test_the_condition_matters(metric, mps_weights, clip, images):
    other = MPS(str(mps_weights), str(clip), "a triangle", threshold=0.9, device="cpu")
    same = MPS(str(mps_weights), str(clip), CONDITION, threshold=0.9, device="cpu")
    assert (other._relevant(other._texts(PROMPTS)[0]) != same._relevant(same._texts(PROMPTS)[0])).any()


@pytest.mark.parametrize(
    "missing", ["cross_model.layers.0.0.fn.to_kv.weight", "cross_model.layers.1.1.fn.attn_out.weight"]
)
def test_incomplete_weights_are_refused(mps_weights, clip, tmp_path, missing):
    path = tmp_path / "mps.safetensors"
    save_file({name: tensor for name, tensor in load_file(mps_weights).items() if name != missing}, path)
    with pytest.raises(UserError, match=r"MPS|Fusion") as error:
        MPS(str(path), str(clip), CONDITION, device="cpu")
    assert "\n" not in str(error.value)
