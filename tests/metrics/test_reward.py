"""Rewards as weighted sums, and the configs of them."""

import pytest
import torch
from hydra.utils import instantiate

from golden_noise.cli.conf import choices
from golden_noise.cli.config import job_config
from golden_noise.errors import UserError
from golden_noise.images import from_pil, to_pil
from golden_noise.metrics.aes import AES
from golden_noise.metrics.base import DifferentiableMetric
from golden_noise.metrics.redness import Redness
from golden_noise.metrics.reward import WeightedReward
from golden_noise.shapes.metric import ShapesScore

from .configs import CAPTIONS


class Brightness:
    """Mean brightness, of a wider range."""

    range, version = (0.0, float("inf")), "2"

    def score(self, prompts, images):
        return images.mean(dim=(1, 2, 3))

    def loss(self, images, prompts):
        return -self.score(prompts, images)


METRICS = {"redness": Redness(), "strict": ShapesScore(strict=True), "brightness": Brightness()}


def mistake(weights, metrics=METRICS):
    with pytest.raises(UserError) as error:
        WeightedReward(metrics, weights)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_redness_by_hand(images):
    saved = from_pil(to_pil(images))
    expected = saved[:, 0].mean((1, 2)) - (saved[:, 1].mean((1, 2)) + saved[:, 2].mean((1, 2))) / 2
    torch.testing.assert_close(Redness().score(CAPTIONS, images), expected)
    red = torch.zeros(2, 3, 5, 7)
    red[0, 0], red[1, 1:] = 1, 1
    assert Redness().score(["", ""], red).tolist() == [1, -1]


def test_is_the_weighted_sum(images):
    images = from_pil(to_pil(images * 0.8 + 0.1)).requires_grad_()
    reward = WeightedReward(METRICS, {"redness": -2.0, "brightness": 0.5})
    score = -2 * Redness().score(CAPTIONS, images) + 0.5 * Brightness().score(CAPTIONS, images)
    torch.testing.assert_close(reward.score(CAPTIONS, images), score)
    loss, parts = reward.loss(images, CAPTIONS), reward.parts(images, CAPTIONS)
    torch.testing.assert_close(loss, -score)
    assert list(parts) == ["redness", "brightness"]
    torch.testing.assert_close(parts["redness"], Redness().loss(images, CAPTIONS))
    assert torch.equal(reward.total(parts), loss)
    (gradient,) = torch.autograd.grad(loss.sum(), images)
    pixels = 32 * 32
    for colour, expected in enumerate((2 - 0.5 / 3, -1 - 0.5 / 3, -1 - 0.5 / 3)):
        torch.testing.assert_close(gradient[:, colour], torch.full((4, 32, 32), expected / pixels))


def test_is_a_metric_of_its_own():
    reward = WeightedReward(METRICS, {"redness": -2, "brightness": 0.5})
    assert isinstance(reward, DifferentiableMetric)
    assert reward.range == (-2, float("inf"))
    assert WeightedReward(METRICS, {"brightness": -1}).range == (-float("inf"), 0)
    assert reward.version == "-2 redness 1 + 0.5 brightness 2"
    again = WeightedReward({"reward": reward}, {"reward": 3.0})  # and may be part of another
    assert again.range == (-6, float("inf"))


def test_a_weight_of_0_leaves_a_metric_out():
    assert list(WeightedReward(METRICS, {"redness": 1, "brightness": 0, "strict": 0}).metrics) == ["redness"]


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), "1", None, True])
def test_weights_are_finite_numbers(weight):
    assert f"reward.weights.redness={weight} must be a finite number" in mistake({"redness": weight})


def test_weights_are_of_its_metrics():
    known = "redness, strict, brightness"
    assert mistake({"hpsv21": 1}) == f"reward.weights.hpsv21: no metric of this reward, which has {known}"
    for weights in ({}, {"redness": 0}):
        assert mistake(weights) == f"reward.weights needs a weight other than 0 for one of {known}"


def test_without_gradients_it_has_a_score_alone(images):
    reward = WeightedReward(METRICS, {"redness": 1, "strict": 2})
    expected = Redness().score(CAPTIONS, images) + 2 * METRICS["strict"].score(CAPTIONS, images)
    torch.testing.assert_close(reward.score(CAPTIONS, images), expected)
    with pytest.raises(UserError, match=r"reward\.weights\.strict: strict has no gradients"):
        reward.loss(images, CAPTIONS)


def configured(choice, tiny):
    """The reward of a config, with tiny builds in place of published weights."""
    reward = job_config("train", [f"reward={choice}", "device=cpu", "folder=run", "name=test"]).reward
    for name, options in reward.metrics.items():
        source = {"reward": "shapes"}.get(name, name)
        for option, value in tiny(source).items():
            if option in options:
                options[option] = value
    return instantiate(reward)


@pytest.mark.parametrize("choice", choices("reward"))
def test_every_config_gives_a_reward(choice, tiny, images):
    reward = configured(choice, tiny)
    assert isinstance(reward, WeightedReward)
    images = from_pil(to_pil(images)).requires_grad_()
    assert reward.score(CAPTIONS, images).isfinite().all()
    if choice == "strict":
        return  # no gradients
    (gradient,) = torch.autograd.grad(reward.loss(images, CAPTIONS).sum(), images)
    assert (gradient.abs().flatten(1).amax(1) > 0).all()


def test_hypernoises_weights_in_our_units(clip, hps_weights, tiny, images):
    """5 (1 - cos) etc., as HyperNoise computes it, and ours have the same gradient."""
    reward = configured("hypernoise", tiny)
    loss = reward.loss(images, CAPTIONS)
    parts = reward.parts(images, CAPTIONS)
    cosine = {"hpsv21": -parts["hpsv21"] / 100, "clipscore": -parts["clipscore"] / 2.5}
    theirs = 5 * (1 - cosine["hpsv21"]) + 0.01 * (100 - 100 * cosine["clipscore"])
    theirs = theirs + parts["imagereward"] + 0.05 * (30 + parts["pickscore"])
    torch.testing.assert_close(theirs - loss, torch.full((4,), 5 + 1 + 1.5))


def test_aes_is_one_of_them(clip, aes_weights):
    metric = AES(str(aes_weights), str(clip), device="cpu")
    assert WeightedReward({"aes": metric}, {"aes": 1}).range == (-float("inf"), float("inf"))
