import numpy as np
import pytest
import torch

from golden_noise.errors import UserError
from golden_noise.shapes.detector import detect, fulfilment, passes
from golden_noise.shapes.metric import ShapesScore, check_captions
from golden_noise.shapes.scenes import sample_batch


@pytest.fixture(scope="module")
def drawn():
    drawn, images = sample_batch(np.random.default_rng(5), 40)
    return drawn, torch.from_numpy(images)


@pytest.mark.parametrize("strict, judge", [(True, passes), (False, fulfilment)])
def test_scores_are_the_detectors(drawn, strict, judge):
    asked, images = drawn
    texts = [request.text for request in asked]
    mixed = images.roll(1, 0)
    mixed[::2] = images[::2]
    scores = ShapesScore(strict).score(texts, mixed)
    saved = ((mixed * 255).round() / 255).numpy()
    expected = [judge(request, detect(image)) for request, image in zip(asked, saved, strict=True)]
    torch.testing.assert_close(scores, torch.tensor(expected, dtype=torch.float32))
    assert scores.dtype == torch.float32
    assert scores.shape == (40,)
    assert (scores[::2] > 0.8).all()
    assert scores[1::2].mean() < 0.6


def test_scores_stay_in_the_stated_range(drawn):
    asked, images = drawn
    texts = [request.text for request in asked]
    for strict in (True, False):
        metric = ShapesScore(strict)
        for pictures in (images, torch.rand_like(images), torch.ones_like(images)):
            scores = metric.score(texts, pictures)
            assert metric.range[0] <= scores.min()
            assert scores.max() <= metric.range[1]


def test_foreign_prompts_are_refused(drawn):
    with pytest.raises(UserError, match="'a dog'"):
        ShapesScore(strict=True).score(["a circle", "a dog"], drawn[1][:2])


def test_captions_are_checked_for_the_metric_alone():
    settings = {"strict": {"_target_": "golden_noise.shapes.metric.ShapesScore", "strict": True}}
    check_captions(settings, ["a red circle"])
    check_captions({"pickscore": {"_target_": "golden_noise.metrics.pickscore.PickScore"}}, ["a cat"])
    with pytest.raises(UserError, match="the shapes metric cannot judge 'a cat'"):
        check_captions(settings, ["a red circle", "a cat"])
