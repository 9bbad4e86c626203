"""The aesthetic predictor, layer by layer as published, and where its weights may come from."""

import hashlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import CLIPModel

from golden_noise.errors import UserError
from golden_noise.metrics.aes import AES
from golden_noise.metrics.clip import MEAN, STD, clip_pixels
from golden_noise.metrics.head import fold_head
from golden_noise.metrics.loading import _download, find_file

PROMPTS = ["a red circle", "two crosses", "", "a blue square"]


@pytest.fixture(scope="module")
def metric(clip, aes_weights):
    return AES(str(aes_weights), str(clip), device="cpu")


def layer_by_layer(tensors, x):
    for i in (0, 2, 4, 6, 7):
        x = F.linear(x, tensors[f"layers.{i}.weight"], tensors[f"layers.{i}.bias"])
    return x.squeeze(-1)


def test_is_the_head_on_clips_unit_features(metric, clip, aes_weights, images):
    model = CLIPModel.from_pretrained(clip).eval()
    with torch.no_grad():
        features = model.get_image_features(clip_pixels(images, 28)).pooler_output
    expected = layer_by_layer(torch.load(aes_weights), features / features.norm(dim=-1, keepdim=True))
    scores = metric.score(PROMPTS, images)
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)
    assert scores.std() > 1e-3


def test_does_not_read_the_prompt(metric, images):
    assert torch.equal(metric.score(PROMPTS, images), metric.score(["something else"] * 4, images))


def test_the_heads_layers_must_be_the_published_ones(aes_weights):
    tensors = torch.load(aes_weights)
    with pytest.raises(UserError, match=r"layers\.4\.bias"):
        fold_head({name: tensor for name, tensor in tensors.items() if name != "layers.4.bias"}, "FILE")
    with pytest.raises(UserError, match="do not fit"):
        fold_head(tensors | {"layers.2.weight": torch.ones(3, 3)}, "FILE")


@pytest.mark.parametrize(
    ("size", "box"),
    [((28, 28), (0, 0, 28, 28)), ((28, 41), (6, 0, 34, 28)), ((28, 39), (6, 0, 34, 28)), ((33, 28), (0, 2, 28, 30))],
)
def test_crops_at_the_centre_as_torchvision_does(size, box):
    """Half a pixel rounds to the even number: 6.5 and 5.5 both to 6, 2.5 to 2."""
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    left, top, right, bottom = box
    expected = (image * 255).round()[..., top:bottom, left:right] / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    torch.testing.assert_close(clip_pixels(image, 28), (expected - mean) / std, atol=1e-6, rtol=1e-6)


def test_resizes_the_shortest_side_with_pil():
    image = torch.rand(1, 3, 60, 100, generator=torch.Generator().manual_seed(0))
    picture = Image.fromarray((image[0] * 255).round().byte().permute(1, 2, 0).numpy())
    small = np.array(picture.resize((46, 28), Image.Resampling.BICUBIC))[:, 9:37]  # int(28 * 100 / 60) = 46
    expected = (
        torch.from_numpy(small).permute(2, 0, 1)[None] / 255 - torch.tensor(MEAN)[:, None, None]
    ) / torch.tensor(STD)[:, None, None]
    torch.testing.assert_close(clip_pixels(image, 28), expected, atol=1e-6, rtol=1e-6)


def test_a_url_needs_a_checksum():
    with pytest.raises(UserError, match="sha256"):
        find_file("https://localhost/weights.pth")


def test_only_the_right_file_arrives_from_a_url(aes_weights, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url, right = f"file://{aes_weights}", hashlib.sha256(aes_weights.read_bytes()).hexdigest()
    path = _download(url, right)
    assert path.read_bytes() == aes_weights.read_bytes()
    assert _download(url, right) == path  # from the cache
    with pytest.raises(RuntimeError, match="hash"):
        _download(url, "0" * 64)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_weights_on_the_hub_that_cannot_be_had_cost_one_line():
    with pytest.raises(UserError, match=r"nobody/nothing/weights\.pth") as error:  # the tests are offline
        find_file("nobody/nothing/weights.pth")
    assert "\n" not in str(error.value)
