"""What the metrics' models see, pixel by pixel, against PIL and NumPy: odd and thin sizes, every kind of image file."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import CLIPImageProcessorPil, Mask2FormerImageProcessorPil

from golden_noise.errors import UserError
from golden_noise.images import from_pil, read_image, to_pil
from golden_noise.metrics.bicubic import bicubic
from golden_noise.metrics.clip import MEAN, STD, clip_pixels, clip_pixels_with_gradients
from golden_noise.metrics.hpsv2 import bordered, hps_pixels, longest_side
from golden_noise.metrics.pickscore import processed_with_gradients

SIDE = 28
SIZES = [(45, 31), (31, 45), (29, 28), (28, 33), (100, 63), (9, 17), (40, 1), (1, 40), (1, 1)]  # height, width


def cubic_matrix(count, into):
    """Weights (into, count) of a bicubic filter that is stretched where it shrinks and cut off at the borders."""
    scale = count / into
    stretch = max(scale, 1)
    x = np.abs(np.arange(count) + 0.5 - (np.arange(into)[:, None] + 0.5) * scale) / stretch
    weights = np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, np.where(x < 2, -0.5 * (((x - 5) * x + 8) * x - 4), 0.0))
    return weights / weights.sum(1, keepdims=True)


def by_clip(picture, round_half):
    """Shortest side to 28 with PIL, its other side rounded down; then the centre of it, as `round_half` says."""
    width, height = (SIDE * side // min(picture.size) for side in picture.size)
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round_half((width - SIDE) / 2), round_half((height - SIDE) / 2)
    return np.asarray(picture)[top : top + SIDE, left : left + SIDE] / 255


def by_hps(picture):
    """Longest side to 28 with a filter that may overshoot; the rest black, the smaller half of it at the top left."""
    pixels, scale = np.asarray(picture) / 255, SIDE / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    if max(picture.size) != SIDE:
        rows, columns = cubic_matrix(picture.height, height), cubic_matrix(picture.width, width)
        pixels = np.einsum("ih,jw,hwc->ijc", rows, columns, pixels)
    whole = np.zeros((SIDE, SIDE, 3))
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    whole[top : top + height, left : left + width] = pixels
    return whole


PROCESSOR = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
# What prepares the images -> the same by hand. torchvision, for AES, ImageReward and CLIPScore, rounds half a pixel of
# the crop to even; transformers, for PickScore and MPS, rounds it down.
PREPARED = {
    "torchvision": (lambda images: clip_pixels(images, SIDE), lambda picture: by_clip(picture, round)),
    "transformers": (
        lambda images: PROCESSOR(to_pil(images), return_tensors="pt").pixel_values,
        lambda picture: by_clip(picture, int),
    ),
    "hpsv2": (lambda images: hps_pixels(images, SIDE, antialias=True), by_hps),
}


def check(prepared, images, pictures):
    prepare, by_hand = PREPARED[prepared]
    expected = np.stack([(by_hand(picture) - MEAN) / STD for picture in pictures]).transpose(0, 3, 1, 2)
    torch.testing.assert_close(prepare(images), torch.from_numpy(expected).float(), atol=2e-5, rtol=1e-5)


@pytest.fixture
def pictures():
    """Two pictures of noise, of a size in height and width."""

    def draw(size):
        pixels = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
        return [Image.fromarray(each) for each in pixels]

    return draw


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("prepared", PREPARED)
def test_every_size_is_prepared_as_published(prepared, size, pictures):
    check(prepared, from_pil(pictures(size)), pictures(size))


# The same with gradients, and how far that may be from the above, in steps of 8 bits. PIL rounds after each axis.
WITH_GRADIENTS = {
    "torchvision": (lambda images: clip_pixels_with_gradients(images, SIDE), 1.5),
    "transformers": (lambda images: processed_with_gradients(images, PROCESSOR), 1.5),
    "hpsv2": (lambda images: bordered(bicubic(images, longest_side(images, SIDE)), SIDE), 1e-3),
}


@pytest.mark.parametrize("size", [*SIZES, (28, 28), (512, 300)], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("prepared", PREPARED)
def test_pixels_with_gradients_differ_by_rounding_only(prepared, size, pictures):
    images, (prepare, levels) = from_pil(pictures(size)), WITH_GRADIENTS[prepared]
    difference = (prepare(images) - PREPARED[prepared][0](images)) * torch.tensor(STD)[:, None, None] * 255
    unchanged = size == (SIDE, SIDE)
    assert difference.abs().max() < (1e-3 if unchanged else levels)
    assert difference.mean().abs() < 0.05


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("size", [(28, 28), (45, 31), (7, 90), (1, 3)])
def test_bicubic_is_torchs(size, antialias):
    images = torch.rand(2, 3, 40, 30, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(images, size, mode="bicubic", antialias=antialias)
    torch.testing.assert_close(bicubic(images, size, antialias), expected, atol=1e-5, rtol=0)
    assert (bicubic(images, size, antialias, clip=True) - expected.clamp(0, 1)).abs().mean() < 0.02


@pytest.mark.parametrize("prepared", WITH_GRADIENTS)
def test_gradients_of_pixels_are_right(prepared):
    images = torch.rand(1, 3, 9, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 2 + 0.25
    assert torch.autograd.gradcheck(lambda x: WITH_GRADIENTS[prepared][0](x)[..., ::5, ::5], images.requires_grad_())


@pytest.mark.parametrize(
    "changes",
    [
        {"do_center_crop": False},
        {"resample": 2},
        {"size": {"height": SIDE, "width": SIDE}},
        {"size": {"shortest_edge": 9}},
    ],
)
def test_other_ways_of_preparing_images_are_refused(changes):
    usual = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    with pytest.raises(UserError, match="no gradients"):
        processed_with_gradients(torch.rand(1, 3, 40, 30), CLIPImageProcessorPil(**usual | changes))


def test_an_image_processors_own_settings_count():
    own = {"size": {"shortest_edge": 33}, "crop_size": {"height": 20, "width": 25}, "image_mean": [0.1, 0.2, 0.3]}
    processor = CLIPImageProcessorPil(**own, image_std=[0.5, 0.6, 0.7], rescale_factor=1 / 127.5)
    images = from_pil(to_pil(torch.rand(2, 3, 33, 47, generator=torch.Generator().manual_seed(0))))
    expected = processor(to_pil(images), return_tensors="pt").pixel_values
    torch.testing.assert_close(processed_with_gradients(images, processor), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", ["RGBA", "L", "LA", "P", "1"])
@pytest.mark.parametrize("prepared", PREPARED)
def test_every_kind_of_file_is_prepared_as_rgb(prepared, mode, pictures, tmp_path):
    (picture, _) = pictures((45, 31))
    picture.convert(mode).save(tmp_path / "a.png")
    expected = Image.open(tmp_path / "a.png").convert("RGB")
    assert (np.asarray(expected) != np.asarray(picture)).any() or mode == "RGBA"
    check(prepared, from_pil([read_image(tmp_path / "a.png")]), [expected])


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_the_detector_sees_whole_images_in_multiples_of_32(size, pictures):
    processor = Mask2FormerImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 106})
    seen = processor(pictures(size), return_tensors="pt").pixel_values
    height, width = (side for side in seen.shape[-2:])
    assert height % 32 == width % 32 == 0 and max(height, width) <= 128
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
    small = [np.asarray(each.resize((width, height), Image.Resampling.BILINEAR)) for each in pictures(size)]
    expected = ((np.stack(small) / 255 - mean) / std).transpose(0, 3, 1, 2)
    torch.testing.assert_close(seen, torch.from_numpy(expected).float(), atol=1e-5, rtol=1e-5)
