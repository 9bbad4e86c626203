"""ReNO: where it ends is known for a linear generator and reward; the rest on the tiny pipeline."""

from types import SimpleNamespace

import pytest
import torch
from hydra.utils import instantiate

from golden_noise.cli.config import job_config
from golden_noise.errors import UserError
from golden_noise.metrics.reward import WeightedReward
from golden_noise.noise import draw_noise
from golden_noise.pipelines.prompt_embedding import PromptEmbedding
from golden_noise.search.reno import ReNO
from golden_noise.search.rescale import Rescale
from golden_noise.shapes.metric import ShapesScore

NOISE = draw_noise([0, 1, 2], (4, 8, 8))
SHAPE = (2, 4, 4)  # of the linear generator's noise: d = 32
PROMPT = PromptEmbedding(torch.zeros(2, 1, 1), texts=("a circle", "a cross"))


class Linear:
    """A pipeline whose images are A x, and a reward that is their product with w."""

    device, dtype, steps = torch.device("cpu"), torch.float32, 1

    def __init__(self, length: float = 0.05):
        draw = torch.Generator().manual_seed(0)
        self.a, w = torch.randn(7, 32, generator=draw), torch.randn(7, generator=draw)
        self.w = w * length / (self.a.T @ w).norm()
        self.gradient = self.a.T @ self.w
        self.direction = self.gradient / length
        self.seen = []

    def generate(self, noise, prompt, steps, guidance, jacobian_steps, checkpointing):
        return noise.flatten(1) @ self.a.T

    def loss(self, images, prompts):
        losses = -(images @ self.w)
        self.seen.append(-losses.detach())
        return losses


def bright(sign=1.0, scale=10.0):
    return SimpleNamespace(loss=lambda images, prompts: -sign * scale * images.mean(dim=(1, 2, 3)))


def rewards(pipeline, prompt, noise, reward):
    return -reward.loss(pipeline.generate(noise, prompt), prompt.texts)


def test_with_the_norm_it_ends_where_the_gradients_cancel():
    """|g| = weight (r - (d - 1) / r) at the length r along the reward's direction g."""
    toy, weight, size = Linear(length=0.05), 0.01, 32
    pull = 0.05 / weight
    length = (pull + (pull**2 + 4 * (size - 1)) ** 0.5) / 2
    noise = draw_noise([3, 4], SHAPE)
    found = ReNO(toy, momentum=0.0, iterations=3000).search(noise, PROMPT, toy)
    expected = (length * toy.direction).reshape(1, *SHAPE).expand(2, *SHAPE)
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=0)


def test_on_the_sphere_it_ends_at_the_best_direction():
    toy, noise = Linear(), draw_noise([3, 4], SHAPE)
    found = ReNO(toy, iterations=300, regulariser="sphere").search(noise, PROMPT, toy)
    expected = (32**0.5 * toy.direction).reshape(1, *SHAPE).expand(2, *SHAPE)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_the_steps_are_those_of_torchs_sgd():
    toy, x = Linear(length=1.0), draw_noise([3], SHAPE)
    expected = torch.nn.Parameter(x.clone())
    optimiser = torch.optim.SGD([expected], lr=5.0, momentum=0.9, nesterov=True)
    for _ in range(4):
        optimiser.zero_grad()
        toy.loss(toy.generate(expected, None, 1, None, None, False), ()).sum().backward()
        torch.nn.utils.clip_grad_norm_([expected], 0.1)
        optimiser.step()
    found = ReNO(toy, iterations=4, regulariser="none").search(x, PROMPT[:1], toy)
    torch.testing.assert_close(found, expected.data, atol=1e-4, rtol=0)


def test_the_best_iterate_is_kept():
    toy, noise = Linear(), draw_noise([3, 4], SHAPE)
    found = ReNO(toy, lr=400.0, iterations=6, regulariser="sphere").search(noise, PROMPT, toy)
    seen = torch.stack(toy.seen)
    assert len(seen) == 7
    assert (seen.argmax(0) < 6).any()  # the last is not the best: such steps jump about
    torch.testing.assert_close(-toy.loss(toy.generate(found, *[None] * 5), ()), seen.amax(0))


def test_the_reward_of_each_image_rises(sdxl, prompt):
    for sign in (1.0, -1.0):
        reward = bright(sign)
        golden = ReNO(reward, lr=1.0, iterations=3).search(NOISE, prompt, sdxl)
        gain = rewards(sdxl, prompt, golden, reward) - rewards(sdxl, prompt, NOISE, reward)
        assert (gain > 0).all()


@pytest.mark.parametrize("name", ["norm", "mpgr", "gper", "sphere", "none"])
def test_every_regulariser_searches(sdxl, prompt, name):
    golden = ReNO(bright(), iterations=2, regulariser=name).search(NOISE, prompt, sdxl)
    assert golden.isfinite().all() and (golden != NOISE).any()


def test_a_noise_moves_as_much_whatever_its_neighbours_want(sdxl, prompt):
    """The first noise's steps are the same beside one with a gradient ten thousand times as steep."""

    def uneven(images, prompts):
        factor = torch.tensor([1.0, 1e4][: len(images)])
        return -factor * images.mean(dim=(1, 2, 3))

    search = ReNO(SimpleNamespace(loss=uneven), iterations=2)
    alone, beside = search.search(NOISE[:1], prompt[:1], sdxl), search.search(NOISE[:2], prompt[:2], sdxl)
    torch.testing.assert_close(beside[:1], alone, atol=1e-4, rtol=0)


def test_checkpointing_changes_nothing(sdxl, prompt):
    plain, saving = (ReNO(bright(), iterations=2, checkpointing=on).search(NOISE, prompt, sdxl) for on in (False, True))
    torch.testing.assert_close(saving, plain, atol=1e-5, rtol=0)


def test_jacobian_steps_change_the_gradient(sdxl, prompt):
    found = [ReNO(bright(), iterations=1, jacobian_steps=kept).search(NOISE, prompt, sdxl) for kept in (0, 1, 2, None)]
    assert torch.equal(found[2], found[3])
    assert all((found[i] - found[3]).abs().max() > 1e-4 for i in (0, 1))


def test_it_starts_from_another_search(sdxl, prompt):
    start = ReNO(bright(), iterations=2, start=Rescale(0.7)).search(NOISE, prompt, sdxl)
    assert torch.equal(start, ReNO(bright(), iterations=2).search(0.7 * NOISE, prompt, sdxl))


def test_the_name_of_a_search_is_no_start():
    with pytest.raises(UserError, match=r"search\.start=rescale is no search: add \+search@search\.start=NAME"):
        ReNO(bright(), start="rescale")


def test_the_config_group_gives_the_start():
    config = job_config("collect", ["search=reno", "+search@search.start=rescale", "search.start.factor=0.7"])
    assert instantiate(config.search.start) == Rescale(0.7)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_reward_that_is_not_finite_names_its_prompt(value):
    toy = Linear()
    broken = SimpleNamespace(loss=lambda images, prompts: toy.loss(images, prompts) + torch.tensor([0.0, value]))
    with pytest.raises(UserError, match=r"the reward of 'a cross' is not finite in iteration 0"):
        ReNO(broken, iterations=2).search(draw_noise([3, 4], SHAPE), PROMPT, toy)


def test_a_gradient_that_is_not_finite_names_its_prompt():
    toy, noise = Linear(), draw_noise([3, 4], SHAPE)
    noise[0] = 0  # the root has no gradient there
    broken = SimpleNamespace(loss=lambda images, prompts: images.norm(dim=1).pow(2).sqrt())
    with pytest.raises(UserError, match=r"the reward's gradient of 'a circle' is not finite in iteration 0"):
        ReNO(broken, iterations=2, regulariser="none").search(noise, PROMPT, toy)


def test_noise_that_the_regulariser_cannot_handle_is_refused_first():
    toy = Linear()
    with pytest.raises(UserError, match="multiple of 32"):
        ReNO(toy, regulariser="gper").search(draw_noise([3, 4], (3, 4, 4)), PROMPT, toy)
    assert toy.seen == []


@pytest.mark.parametrize(
    "options, named",
    [
        ({"iterations": 0}, "search.iterations=0"),
        ({"steps": 0}, "search.steps=0"),
        ({"lr": 0.0}, "search.lr=0.0"),
        ({"clip": 0.0}, "search.clip=0.0"),
        ({"momentum": 1.0}, "search.momentum=1.0"),
        ({"regulariser": "l2"}, "search.regulariser='l2'"),
        ({"regulariser": "sphere", "weight": 0.1}, "search.weight=0.1"),
        ({"weight": -1.0}, "search.weight=-1.0"),
        ({"jacobian_steps": 3}, "jacobian_steps=3"),
    ],
)
def test_senseless_settings(sdxl, prompt, options, named):
    with pytest.raises(UserError) as error:
        ReNO(bright(), **options).search(NOISE, prompt, sdxl)
    assert named in str(error.value)


def test_a_metric_without_gradients_is_refused():
    with pytest.raises(UserError, match=r"reward\.weights\.strict: strict has no gradients"):
        ReNO(WeightedReward({"strict": ShapesScore(strict=True)}, {"strict": 1.0}))
    with pytest.raises(UserError, match="ShapesScore has no gradients"):
        ReNO(ShapesScore(strict=True))
