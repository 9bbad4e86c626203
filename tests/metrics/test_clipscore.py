import pytest
import torch
from transformers import CLIPModel

from golden_noise.metrics.clip import clip_pixels
from golden_noise.metrics.clipscore import CLIPScore

PROMPTS = ["a red circle", "two crosses", "a blue square left of a green triangle", "a red circle"]


@pytest.fixture(scope="module")
def metric(clip):
    return CLIPScore(str(clip), device="cpu")


def cosines(metric, folder, prompts, images):
    model = CLIPModel.from_pretrained(folder).eval()
    with torch.no_grad():
        found = model(input_ids=metric.clip.tokens(prompts).input_ids, pixel_values=clip_pixels(images, 28))
    return found.logits_per_image.diagonal() / model.logit_scale.exp()


def test_is_two_and_a_half_cosines_but_never_negative(metric, clip, images):
    many, prompts = images.repeat(4, 1, 1, 1).roll(1, 2), PROMPTS * 4
    many[::2] = 1 - many[::2]
    cosine = cosines(metric, clip, prompts, many)
    cosine_both = torch.cat([cosine, cosines(metric, clip, PROMPTS, torch.zeros(4, 3, 32, 32))])
    scores = torch.cat([metric.score(prompts, many), metric.score(PROMPTS, torch.zeros(4, 3, 32, 32))])
    torch.testing.assert_close(scores, 2.5 * cosine_both.clamp(min=0), atol=1e-5, rtol=0)
    assert scores.max() > 0


def test_negative_cosines_become_zero(metric, images):
    with torch.no_grad():
        metric.clip.model.visual_projection.weight.neg_()
        negated = metric.score(PROMPTS, images)
        metric.clip.model.visual_projection.weight.neg_()
    positive = metric.score(PROMPTS, images)
    assert ((negated == 0) | (positive == 0)).all()  # one of the two signs is cut off
    assert ((negated > 0) | (positive > 0)).any()


def test_the_prefix_goes_before_every_prompt(clip, metric, images):
    prefixed = CLIPScore(str(clip), prefix="two crosses left of ", device="cpu")
    expected = metric.score([f"two crosses left of {prompt}" for prompt in PROMPTS], images)
    assert torch.equal(prefixed.score(PROMPTS, images), expected)
    assert not torch.equal(expected, metric.score(PROMPTS, images))
