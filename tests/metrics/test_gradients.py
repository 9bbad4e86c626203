"""What every metric with gradients has to keep, on tiny random weights saved to disk."""

import pytest
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from torch import nn

from golden_noise.images import from_pil, to_pil
from golden_noise.metrics.base import DifferentiableMetric
from golden_noise.metrics.clip import CLIP
from golden_noise.metrics.gradients import GivesGradients

from .configs import CAPTIONS, CHOICES, settings

NAMES = {"pickscore", "hpsv2", "hpsv21", "clipscore", "aes", "imagereward", "redness", "reward"}
EXACT = {"hpsv2", "hpsv21", "redness"}  # their images are not rounded after they are resized
SIZES = [(28, 28), (32, 32), (45, 31), (100, 224), (20, 17)]


@pytest.fixture(scope="module", params=[each for each in CHOICES if each[1] in NAMES], ids=lambda each: each[1])
def case(request, tiny):
    """(name, metric)"""
    choice, name = request.param
    return name, instantiate(settings(choice, name, **tiny(choice)))


@pytest.fixture(scope="module")
def metric(case):
    return case[1]


@pytest.fixture(params=["noise", "smooth"])
def draw(request):
    """Draws four images of a size, of 8 bits."""

    def images(size):
        side = {"noise": size, "smooth": (4, 4)}[request.param]
        coarse = torch.rand(4, 3, *side, generator=torch.Generator().manual_seed(3))
        return from_pil(to_pil(F.interpolate(coarse, size, mode="bilinear", align_corners=True)))

    return images


@pytest.fixture
def smooth():
    """Four images (4, 3, 45, 31) far from black and white, so that nothing is clipped."""
    coarse = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(4)) * 0.4 + 0.3
    return F.interpolate(coarse, (45, 31), mode="bilinear", align_corners=True)


def differentiate(metric, images, prompts=CAPTIONS):
    """Loss (B,) and its gradient to each image."""
    images = images.clone().requires_grad_()
    loss = metric.loss(images, prompts)
    (gradient,) = torch.autograd.grad(loss.sum(), images)
    assert loss.shape == (len(images),)
    assert loss.dtype == torch.float32
    assert gradient.isfinite().all()
    assert (gradient.abs().flatten(1).amax(1) > 0).all()
    return loss.detach(), gradient


def close(found, expected, atol=1e-4, rtol=1e-4):
    torch.testing.assert_close(found, expected, atol=atol, rtol=rtol)


def modules(thing):
    """All networks that a metric holds, or its CLIP."""
    for value in vars(thing).values():
        if isinstance(value, CLIP):
            yield from modules(value)
        elif isinstance(value, nn.Module):
            yield value


def test_those_that_have_gradients_are_known(tiny):
    for choice, name in CHOICES:
        made = instantiate(settings(choice, name, **tiny(choice)))
        assert isinstance(made, DifferentiableMetric) == (name in NAMES)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_loss_is_minus_the_score(case, size, draw):
    """To the bit or nearly so, unless PIL rounds pixels after it resized them: that moves scores of random weights by
    up to a fifth of their standard deviation."""
    name, metric = case
    images = draw(size)
    scores, (loss, _) = metric.score(CAPTIONS, images), differentiate(metric, images)
    if name == "clipscore":
        loss = loss.clamp(max=0)
    side = 32 if name == "reward" else 28
    exact = name in EXACT or size == (side, side)
    close(loss, -scores, atol=1e-4 if exact else 0.25 * max(0.1, scores.std().item()), rtol=0)


def test_a_batch_is_its_singles(metric, images):
    loss, gradient = differentiate(metric, images)
    singles = [differentiate(metric, images[i : i + 1], CAPTIONS[i : i + 1]) for i in range(4)]
    close(loss, torch.cat([each for each, _ in singles]))
    close(gradient, torch.cat([each for _, each in singles]), rtol=1e-2, atol=1e-2 * gradient.abs().max().item())


def test_repeated_prompts_and_images_count_alike(metric, images):
    loss, gradient = differentiate(metric, images[[0, 1, 0]], ["a circle"] * 3)
    close(loss[0], loss[2])
    close(gradient[0], gradient[2], atol=1e-3, rtol=1e-2)
    assert (loss[0] - loss[1]).abs() > 1e-4


def test_an_images_loss_is_its_own(metric, images):
    images = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(metric.loss(images, CAPTIONS)[1], images)
    assert (gradient[[0, 2, 3]] == 0).all()
    assert gradient[1].abs().max() > 0


def test_finite_differences_agree(metric, smooth):
    """A step along the gradient changes each loss by the gradient's length, and so do others by their share."""
    _, gradient = differentiate(metric, smooth)
    random = F.interpolate(torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(5)), (45, 31))
    for direction in (gradient, random):
        direction = F.normalize(direction.flatten(1), dim=1).view_as(direction)
        step, expected = 0.003, (gradient * direction).flatten(1).sum(1)
        ends = [metric.loss(smooth + sign * step * direction, CAPTIONS) for sign in (1, -1)]
        found = (ends[0] - ends[1]) / (2 * step)
        close(found, expected, rtol=0.01, atol=0.01 * gradient.flatten(1).norm(dim=1).max().item())


def test_parameters_are_frozen(metric, images):
    parameters = [parameter for module in modules(metric) for parameter in module.parameters()]
    assert bool(parameters) == isinstance(metric, GivesGradients)
    differentiate(metric, images)
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in parameters)


def test_scoring_in_inference_mode_leaves_nothing_behind(metric, images):
    before, gradient = differentiate(metric, images)
    with torch.inference_mode():
        scores = metric.score(CAPTIONS, images)
        assert not metric.loss(images, CAPTIONS).requires_grad
    after, again = differentiate(metric, images)
    assert torch.equal(before, after)
    assert torch.equal(gradient, again)
    assert torch.equal(metric.score(CAPTIONS, images.clone().requires_grad_()), scores)


@pytest.mark.parametrize("part", ["_prepare", "_judge"])
def test_a_part_without_gradients_is_noticed(metric, part, images, monkeypatch):
    if not isinstance(metric, GivesGradients):
        pytest.skip("it has no parts")
    monkeypatch.setattr(metric, part, torch.no_grad()(getattr(metric, part)))
    with pytest.raises(RuntimeError, match="does not require grad"):
        differentiate(metric, images)


def test_a_surrounding_autocast_changes_nothing(metric, images):
    expected, gradient = differentiate(metric, images)
    images = images.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = metric.loss(images, CAPTIONS)
    loss.sum().backward()  # outside, as trainers do
    assert torch.equal(loss.detach(), expected)
    assert torch.equal(images.grad, gradient)


def test_images_may_be_in_half_precision(metric, images):
    half = images.bfloat16()
    loss, gradient = differentiate(metric, half)
    close(loss, differentiate(metric, half.float())[0])
    assert gradient.dtype == torch.bfloat16


def test_pixels_beyond_white_and_black_count_as_clipped(metric, images):
    beyond = images * 3 - 1
    loss, gradient = differentiate(metric, beyond)
    close(loss, differentiate(metric, beyond.clamp(0, 1))[0], atol=1e-6)
    assert (gradient[(beyond < 0) | (beyond > 1)] == 0).all()


def test_pixels_that_are_not_finite_show_in_the_loss(metric, images):
    broken = images.clone()
    broken[1, :, 5, 5] = torch.nan
    assert metric.loss(broken, CAPTIONS).isnan().tolist() == [False, True, False, False]


@pytest.mark.parametrize(("choice", "name"), [each for each in CHOICES if each[1] in NAMES - {"redness"}])
def test_half_precision_is_close(choice, name, tiny, images):
    if "dtype" not in settings(choice, name):
        pytest.skip("it has none")
    exact, half = (
        differentiate(instantiate(settings(choice, name, **tiny(choice), dtype=dtype)), images)
        for dtype in ("float32", "bfloat16")
    )
    assert (half[0] - exact[0]).abs().max() < 0.1 * max(1, exact[0].abs().max())
    assert F.cosine_similarity(half[1].flatten(1), exact[1].flatten(1)).min() > 0.9


def test_clipscores_loss_goes_on_below_zero(clip, tiny, images):
    metric = instantiate(settings("clipscore", "clipscore", **tiny("clipscore")))
    loss, _ = differentiate(metric, torch.cat([images, 1 - images]), CAPTIONS * 2)
    scores = metric.score(CAPTIONS * 2, torch.cat([images, 1 - images]))
    clear = loss.abs() > 0.05  # the score rounds pixels
    assert (loss[clear] > 0).any()
    assert ((loss > 0) == (scores == 0))[clear].all()
