"""Objectives on a linear generator with a linear reward, where the best move is known exactly."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from golden_noise.errors import UserError
from golden_noise.objectives.guided import Guided
from golden_noise.objectives.pairs import Pairs
from golden_noise.objectives.policy import Policy, advantages
from golden_noise.objectives.reward import Reward
from golden_noise.objectives.transport import Transport, coupled
from golden_noise.pipelines.prompt_embedding import PromptEmbedding

SHAPE = (3, 4, 6)
SIZE = 3 * 4 * 6
PROMPT = PromptEmbedding(torch.zeros(5, 1, 1), texts=("a", "b", "a", "", "ü"))


class Shift(nn.Module):
    """Golden noise = noise + one move."""

    def __init__(self):
        super().__init__()
        self.move = nn.Parameter(torch.zeros(SHAPE))

    def golden(self, noise, prompt):
        return noise + self.move


class Linear:
    """Images are the noise times a matrix; guidance adds a constant for each unit."""

    def __init__(self):
        random = torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(1))
        self.matrix = 1.5 * torch.linalg.qr(random).Q

    @property
    def loaded(self):
        return self

    def clean(self, noise, prompt, steps=None, guidance=None, jacobian_steps=None, checkpointing=False):
        return (noise.flatten(1) @ self.matrix.T).unflatten(1, SHAPE) + (guidance or 1.0) - 1.0

    generate = clean

    def sample(self, prompt, latents):
        return self.clean(latents, prompt)


class Along:
    """Scores an image by its product with a weight."""

    def __init__(self):
        self.weight = torch.randn(SHAPE, generator=torch.Generator().manual_seed(2))

    def loss(self, images, prompts):
        assert len(prompts) == len(images)
        return -(images * self.weight).flatten(1).sum(dim=1)

    def score(self, prompts, images):
        return -self.loss(images, prompts)


@pytest.fixture
def toy():
    torch.manual_seed(0)
    pipeline, reward = Linear(), Along()
    # d reward / d noise
    gradient = (pipeline.matrix.T @ reward.weight.flatten()).view(SHAPE)
    return SimpleNamespace(pipeline=pipeline, reward=reward, gradient=gradient)


def learn(objective, pipeline, steps, rate, batch=None):
    npnet = Shift()
    for _ in range(steps):
        noise = torch.randn(5, *SHAPE)
        outcome = objective(npnet, {"noise": noise, **(batch or {})}, PROMPT, pipeline)
        npnet.zero_grad()
        outcome.loss.backward()
        npnet.move.data -= rate * npnet.move.grad
    return npnet.move.detach()


@pytest.mark.parametrize("beta", [0.5, 1.0, SIZE])
def test_a_reward_moves_noise_by_d_over_beta_times_its_gradient(toy, beta):
    """Of -w(x + move) + beta / 2 mean(move^2) the least is at move = d / beta w. beta = d is HyperNoise's equation."""
    move = learn(Reward(toy.reward, beta=beta), toy.pipeline, steps=30, rate=0.5 * SIZE / beta)
    torch.testing.assert_close(move, SIZE / beta * toy.gradient, rtol=1e-4, atol=1e-4)


def test_the_penalty_may_draw_towards_smaller_noise(toy):
    noise = torch.randn(5, *SHAPE)
    outcome = Reward(toy.reward, scale=0.7)(Shift(), {"noise": noise}, PROMPT, toy.pipeline)
    assert outcome.figures["penalty"].item() == pytest.approx((0.3 * noise).square().mean().item() / 2, rel=1e-5)
    assert outcome.figures["reward"].item() == pytest.approx(
        toy.reward.score(PROMPT.texts, toy.pipeline.sample(PROMPT, noise)).mean().item(), rel=1e-5
    )


def test_a_policy_moves_noise_along_the_gradient_that_it_never_sees(toy):
    """With a linear reward w the mean of advantage times offset is w / |w|, so move = w / |w| / beta / sigma.

    A finite group sees it with noise, and its own deviation makes it a little shorter.
    """
    sigma, beta = 0.5, 2.0
    move = learn(Policy(toy.reward, group=128, sigma=sigma, beta=beta), toy.pipeline, steps=300, rate=0.02 * SIZE)
    expected = toy.gradient / toy.gradient.norm() / beta / sigma
    assert torch.cosine_similarity(move.flatten(), expected.flatten(), dim=0) > 0.95
    assert (move * expected).sum() / expected.square().sum() == pytest.approx(1, abs=0.1)


def test_without_gradients_a_policy_judges_the_prediction_itself(toy):
    noise = torch.randn(5, *SHAPE)
    with torch.no_grad():
        outcome = Policy(toy.reward)(Shift(), {"noise": noise}, PROMPT, toy.pipeline)
    scores = toy.reward.score(PROMPT.texts, toy.pipeline.sample(PROMPT, noise))
    assert outcome.figures["reward"].item() == pytest.approx(scores.mean().item(), rel=1e-5)
    assert outcome.loss.item() == pytest.approx(-scores.mean().item(), rel=1e-5)  # nothing has moved yet


def test_the_settings_reach_the_sampler(toy):
    calls = []

    def record(noise, prompt, *settings):
        calls.append(settings)
        return noise

    toy.pipeline.clean = toy.pipeline.generate = record
    batch = {"noise": torch.randn(5, *SHAPE)}
    Reward(toy.reward, steps=7, guidance=2.5, jacobian_steps=3, checkpointing=True)(
        Shift(), batch, PROMPT, toy.pipeline
    )
    Guided(target_steps=9, target_guidance=4.0, steps=7, jacobian_steps=2, checkpointing=True)(
        Shift(), batch, PROMPT, toy.pipeline
    )
    assert calls == [(7, 2.5, 3, True), (9, 4.0), (7, 1.0, 2, True)]


def test_advantages_are_of_the_group():
    scores = torch.tensor([[0.0, 1.0], [1.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
    assert torch.equal(advantages(scores), torch.tensor([[-1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]))
    lonely = torch.zeros(100, 1)
    lonely[0] = 1
    assert advantages(lonely).max() == 5


@pytest.mark.parametrize(("group", "sigma"), [(1, 0.2), (8, 0.0)])
def test_a_policy_without_spread_is_refused(toy, group, sigma):
    with pytest.raises(UserError, match=r"objective.group=.* must be >= 2 and objective.sigma=.* above 0"):
        Policy(toy.reward, group=group, sigma=sigma)


def test_unguided_sampling_learns_the_guided_image(toy):
    """Guidance adds 2 to every number here, and the matrix of the move must make up for it."""
    move = learn(Guided(target_guidance=3.0), toy.pipeline, steps=50, rate=0.2 * SIZE)
    moved = toy.pipeline.clean(move[None], PROMPT)
    torch.testing.assert_close(moved, torch.full_like(moved, 2.0), atol=1e-3, rtol=0)


def test_pairs_are_a_mean_squared_error(toy):
    golden = torch.randn(5, *SHAPE)
    noise = torch.randn(5, *SHAPE)
    outcome = Pairs()(Shift(), {"noise": noise, "golden": golden}, PROMPT, toy.pipeline)
    assert outcome.loss.item() == pytest.approx((noise - golden).square().mean().item())
    assert torch.equal(outcome.golden, noise)


def test_noises_are_coupled_within_a_prompt_at_the_least_cost():
    golden, prompts = torch.randn(6, *SHAPE), ("a", "b", "a", "ü", "b", "a")
    noise = golden[[2, 4, 5, 3, 1, 0]] + 0.1 * torch.randn(6, *SHAPE)
    assert (coupled(noise, golden, prompts) - golden).abs().max() < 1
    other = torch.randn(6, *SHAPE)
    found = coupled(other, golden, prompts)
    for i, j in ((0, 2), (0, 5), (2, 5), (1, 4)):  # no exchange is cheaper
        cost = [(found[a] - golden[b]).square().sum() for a, b in ((i, i), (j, j), (i, j), (j, i))]
        assert cost[0] + cost[1] <= cost[2] + cost[3] + 1e-3
    assert torch.equal(found[3], other[3])


def test_transport_learns_where_the_good_noises_lie(toy):
    """Good noise is any noise, moved: the pairs' own noise says nothing of it, the coupling does."""
    batch = {"prompt": ["a"] * 4 + ["b"]}
    move = torch.full(SHAPE, 2.0)

    class Anywhere(Transport):
        def __call__(self, npnet, batch, prompt, pipeline):
            return super().__call__(npnet, batch | {"golden": torch.randn(5, *SHAPE) + move}, prompt, pipeline)

    found = learn(Anywhere(), toy.pipeline, steps=300, rate=0.05 * SIZE / 2, batch=batch)
    assert (found - move).abs().mean() < 0.2


def test_pairs_that_gain_too_little_count_for_nothing(toy):
    noise, golden = torch.randn(5, *SHAPE), torch.randn(5, *SHAPE)
    gains = torch.tensor([[0.2, 1.0], [0.1, 1.0], [0.3, -1.0], [0.4, 0.0], [0.5, 2.0]])
    objective, batch = Pairs(filter={"aes": 0.1, "strict": 0.0}), {"noise": noise, "golden": golden, "gains": gains}
    outcome = objective(Shift(), batch, PROMPT, toy.pipeline)
    expected = (noise - golden)[[0, 4]].square().mean().item()
    assert outcome.loss.item() == pytest.approx(expected, rel=1e-5)
    assert outcome.kept.tolist() == [True, False, False, False, True]
    assert outcome.figures["kept"].item() == pytest.approx(0.4)
    none = objective(Shift(), batch | {"gains": torch.zeros(5, 2)}, PROMPT, toy.pipeline)
    assert none.loss.item() == 0
