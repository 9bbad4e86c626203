"""HPSv2 against open_clip's layout computed by hand, and against its published preparation of images."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from golden_noise.errors import UserError
from golden_noise.metrics.clip import MEAN, STD
from golden_noise.metrics.hpsv2 import HPSv2, hps_pixels

PROMPTS = ["a red circle", "two crosses", "a blue square left of a green triangle", "a red circle"]
HEADS = 2


@pytest.fixture(scope="module")
def metric(clip, hps_weights):
    return HPSv2(str(hps_weights), str(clip), device="cpu")


def transformer(tensors, prefix, x, mask=None):
    """open_clip's residual blocks, as torch itself computes attention; x is (B, L, D)."""
    for i in (0, 1):
        block = {k.removeprefix(f"{prefix}{i}."): v for k, v in tensors.items() if k.startswith(f"{prefix}{i}.")}
        attention = torch.nn.MultiheadAttention(x.shape[-1], HEADS, batch_first=True).eval()
        attention.load_state_dict({k.removeprefix("attn."): v for k, v in block.items() if k.startswith("attn.")})
        y = F.layer_norm(x, x.shape[-1:], block["ln_1.weight"], block["ln_1.bias"])
        x = x + attention(y, y, y, attn_mask=mask, need_weights=False)[0]
        y = F.layer_norm(x, x.shape[-1:], block["ln_2.weight"], block["ln_2.bias"])
        y = F.gelu(F.linear(y, block["mlp.c_fc.weight"], block["mlp.c_fc.bias"]))
        x = x + F.linear(y, block["mlp.c_proj.weight"], block["mlp.c_proj.bias"])
    return x


def norm(tensors, name, x):
    return F.layer_norm(x, x.shape[-1:], tensors[f"{name}.weight"], tensors[f"{name}.bias"])


@torch.no_grad()
def by_hand(path, tokens, pixels):
    """100 * cosine (B,) from tokens (B, 16), in which the end has the highest number, and pixels (B, 3, 28, 28)."""
    tensors = {name: tensor.float() for name, tensor in torch.load(path)["state_dict"].items()}
    x = F.conv2d(pixels, tensors["visual.conv1.weight"], stride=7).flatten(2).mT
    x = torch.cat([tensors["visual.class_embedding"].expand(len(x), 1, -1), x], dim=1)
    x = norm(tensors, "visual.ln_pre", x + tensors["visual.positional_embedding"])
    x = transformer(tensors, "visual.transformer.resblocks.", x)[:, 0]
    image = norm(tensors, "visual.ln_post", x) @ tensors["visual.proj"]
    y = tensors["token_embedding.weight"][tokens] + tensors["positional_embedding"]
    mask = torch.full((16, 16), float("-inf")).triu(1)
    y = norm(tensors, "ln_final", transformer(tensors, "transformer.resblocks.", y, mask))
    text = y[torch.arange(len(y)), tokens.argmax(-1)] @ tensors["text_projection"]
    return 100 * (F.normalize(image, dim=-1) * F.normalize(text, dim=-1)).sum(-1)


def test_is_open_clips_cosine(metric, hps_weights, images):
    tokens = metric.clip.tokens(PROMPTS).input_ids
    scores = metric.score(PROMPTS, images)
    expected = by_hand(hps_weights, tokens, hps_pixels(images, 28, antialias=True))
    torch.testing.assert_close(scores, expected, atol=1e-3, rtol=0)
    assert scores.std() > 1


def test_the_end_token_has_the_highest_number(metric):
    tokens = metric.clip.tokens(PROMPTS).input_ids  # which open_clip looks for and so does `by_hand`
    assert (tokens.max(dim=-1).values == metric.clip.tokenizer.eos_token_id).all()


def unnormalised(pixels):
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return pixels * std + mean


def test_images_are_shrunk_whole_and_bordered_in_black():
    image = torch.ones(1, 3, 56, 30)
    pixels = unnormalised(hps_pixels(image, 28, antialias=True))
    assert pixels.shape == (1, 3, 28, 28)
    expected = torch.zeros(1, 3, 28, 28)
    expected[..., 6:21] = 1  # 15 columns wide; 13 columns of border, the smaller half on the left
    torch.testing.assert_close(pixels, expected, atol=1e-5, rtol=0)


def test_images_of_the_right_length_are_only_bordered():
    image = torch.rand(1, 3, 9, 28, generator=torch.Generator().manual_seed(0))
    pixels = unnormalised(hps_pixels(image, 28, antialias=True))
    torch.testing.assert_close(pixels[..., 9:18, :], (image * 255).round() / 255, atol=1e-5, rtol=0)
    assert pixels[..., :9, :].abs().max() < 1e-5
    assert pixels[..., 18:, :].abs().max() < 1e-5


@pytest.mark.parametrize("antialias", [True, False])
def test_bicubic_weights(antialias):
    """A thin line halves in size: Keys' cubic is sampled at the new places, stretched if the image is smoothed."""
    line = torch.zeros(1, 3, 56, 56)
    line[..., 20] = 1
    row = unnormalised(hps_pixels(line, 28, antialias))[0, 0, 14]

    def cubic(x, a):
        x = np.abs(x)
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        return np.where(x < 1, near, np.where(x < 2, a * (((x - 5) * x + 8) * x - 4), 0.0))

    centres, columns = (np.arange(28) + 0.5) * 2 - 0.5, np.arange(56)
    stretch, a = (2, -0.5) if antialias else (1, -0.75)
    weights = cubic((columns - centres[:, None]) / stretch, a)
    weights /= weights.sum(1, keepdims=True)
    torch.testing.assert_close(row, torch.from_numpy(weights[:, 20]).float(), atol=1e-5, rtol=0)
    assert row.min() < -0.01  # it overshoots, which saved 8-bit images could not


def test_thin_images_keep_a_pixel():
    assert hps_pixels(torch.ones(1, 3, 100, 1), 28, antialias=True).isfinite().all()


def test_antialiasing_matters(clip, hps_weights, metric):
    large = torch.rand(2, 3, 100, 100, generator=torch.Generator().manual_seed(3))
    rough = HPSv2(str(hps_weights), str(clip), antialias=False, device="cpu")
    assert (metric.score(PROMPTS[:2], large) - rough.score(PROMPTS[:2], large)).abs().max() > 1e-2


def test_weights_may_lie_in_safetensors(clip, hps_weights, metric, images, tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "HPS_v2.1_compressed.safetensors"
    save_file(torch.load(hps_weights)["state_dict"], path)
    other = HPSv2(str(path), str(clip), device="cpu")
    assert torch.equal(other.score(PROMPTS, images), metric.score(PROMPTS, images))


class Harmful:
    def __reduce__(self):
        return (Image.new, ("RGB", (1, 1)))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "weights.pt is empty"),
        (b"no checkpoint", "holds no tensors"),
        ({"state_dict": {"logit_scale": torch.ones(())}}, "do not fit"),
        ({"state_dict": Harmful()}, "more than tensors"),
        ({"state_dict": {"logit_scale": 1.0}}, "other things than tensors"),
    ],
)
def test_files_of_other_content_are_refused(clip, tmp_path, content, words):
    path = tmp_path / "weights.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(UserError, match=words) as error:
        HPSv2(str(path), str(clip), device="cpu")
    assert "\n" not in str(error.value)


def test_weights_of_another_size_are_refused(clip, hps_weights, tmp_path):
    tensors = torch.load(hps_weights)["state_dict"]
    tensors["text_projection"] = tensors["text_projection"][:, :5]
    path = tmp_path / "weights.pt"
    torch.save({"state_dict": tensors}, path)
    with pytest.raises(UserError) as error:
        HPSv2(str(path), str(clip), device="cpu")
    assert "\n" not in str(error.value)
