"""ImageReward against BLIP's two halves computed by hand from the published names."""

import math

import pytest
import torch
import torch.nn.functional as F

from golden_noise.errors import UserError
from golden_noise.metrics.clip import clip_pixels
from golden_noise.metrics.imagereward import ImageReward

PROMPTS = ["a red circle", "two crosses", "a blue square left of a green triangle " * 9, "a red circle"]


@pytest.fixture(scope="module")
def metric(imagereward_weights, bert_tokenizer):
    return ImageReward(str(imagereward_weights), str(bert_tokenizer), device="cpu")


@pytest.fixture(scope="module")
def tensors(imagereward_weights):
    return torch.load(imagereward_weights)


def linear(tensors, name, x):
    return F.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])


def norm(tensors, name, x, eps):
    return F.layer_norm(x, x.shape[-1:], tensors[f"{name}.weight"], tensors[f"{name}.bias"], eps)


def attend(query, key, value, mask=None):
    """Attention with heads of width 64; mask (B, L) is added to the logits."""
    heads = [x.unflatten(-1, (-1, 64)).transpose(1, 2) for x in (query, key, value)]
    logits = heads[0] @ heads[1].mT / math.sqrt(64)
    if mask is not None:
        logits = logits + mask[:, None, None]
    return (logits.softmax(-1) @ heads[2]).transpose(1, 2).flatten(2)


def see(tensors, pixels):
    eyes = "blip.visual_encoder"
    x = F.conv2d(pixels, tensors[f"{eyes}.patch_embed.proj.weight"], tensors[f"{eyes}.patch_embed.proj.bias"], stride=7)
    x = torch.cat([tensors[f"{eyes}.cls_token"].expand(len(x), -1, -1), x.flatten(2).mT], dim=1)
    x = x + tensors[f"{eyes}.pos_embed"]
    for block in (f"{eyes}.blocks.0", f"{eyes}.blocks.1"):
        y = linear(tensors, f"{block}.attn.qkv", norm(tensors, f"{block}.norm1", x, 1e-6))
        x = x + linear(tensors, f"{block}.attn.proj", attend(*y.chunk(3, dim=-1)))
        y = F.gelu(linear(tensors, f"{block}.mlp.fc1", norm(tensors, f"{block}.norm2", x, 1e-6)))
        x = x + linear(tensors, f"{block}.mlp.fc2", y)
    return norm(tensors, f"{eyes}.norm", x, 1e-6)


def read(tensors, tokens, padding, seen):
    words = "blip.text_encoder"
    x = tensors[f"{words}.embeddings.word_embeddings.weight"][tokens]
    x = x + tensors[f"{words}.embeddings.position_embeddings.weight"][: tokens.shape[1]]
    x = norm(tensors, f"{words}.embeddings.LayerNorm", x, 1e-12)
    for layer in (f"{words}.encoder.layer.0", f"{words}.encoder.layer.1"):
        for attention, context, mask in (("attention", None, padding), ("crossattention", seen, None)):
            name, context = f"{layer}.{attention}", x if context is None else context
            query, key, value = (
                linear(tensors, f"{name}.self.{part}", source)
                for part, source in (("query", x), ("key", context), ("value", context))
            )
            y = linear(tensors, f"{name}.output.dense", attend(query, key, value, mask))
            x = norm(tensors, f"{name}.output.LayerNorm", x + y, 1e-12)
        y = linear(tensors, f"{layer}.output.dense", F.gelu(linear(tensors, f"{layer}.intermediate.dense", x)))
        x = norm(tensors, f"{layer}.output.LayerNorm", x + y, 1e-12)
    return x[:, 0]


def test_is_blips_judgement_by_hand(metric, tensors, bert_tokenizer, images):
    ids = metric.tokenizer(PROMPTS).input_ids
    ids = [row if len(row) <= 35 else [*row[:34], row[-1]] for row in ids]  # cut, but the end token stays
    tokens = torch.tensor([row + [0] * (35 - len(row)) for row in ids])
    padding = torch.where(torch.arange(35) < torch.tensor([[len(row)] for row in ids]), 0.0, float("-inf"))
    x = read(tensors, tokens, padding, see(tensors, clip_pixels(images, 28)))
    for i in (0, 2, 4, 6, 7):
        x = linear(tensors, f"mlp.layers.{i}", x)
    expected = (x.squeeze(-1) - 0.16717363) / 1.03333950
    scores = metric.score(PROMPTS, images)
    torch.testing.assert_close(scores, expected, atol=1e-3, rtol=1e-4)
    assert scores.std() > 1e-2
    assert len(ids[2]) == 35


def test_prompts_are_cut_at_35_tokens(metric, images):
    words = ["red", "blue", "green", "circle", "square", "cross", "triangle"] * 6
    full, cut, shorter = (" ".join(words[:count]) for count in (42, 33, 32))  # with start and end
    scores = metric.score([full, cut, shorter], images[[0, 0, 0]])
    torch.testing.assert_close(scores[0], scores[1])
    assert (scores[0] - scores[2]).abs() > 1e-4


def test_padding_is_not_read(metric, images, tensors):
    """A shorter prompt scores as if it were alone without padding."""
    tokens = torch.tensor(metric.tokenizer(["a red circle"]).input_ids)
    x = read(tensors, tokens, torch.zeros_like(tokens), see(tensors, clip_pixels(images[:1], 28)))
    for i in (0, 2, 4, 6, 7):
        x = linear(tensors, f"mlp.layers.{i}", x)
    expected = (x.squeeze(-1) - 0.16717363) / 1.03333950
    torch.testing.assert_close(metric.score(["a red circle"], images[:1]), expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(
    "missing", ["blip.visual_encoder.norm.weight", "blip.visual_encoder.pos_embed", "mlp.layers.0.bias"]
)
def test_incomplete_weights_are_refused(tensors, bert_tokenizer, tmp_path, missing):
    path = tmp_path / "ImageReward.pt"
    torch.save({name: tensor for name, tensor in tensors.items() if name != missing}, path)
    with pytest.raises(UserError) as error:
        ImageReward(str(path), str(bert_tokenizer), device="cpu")
    assert "\n" not in str(error.value)
