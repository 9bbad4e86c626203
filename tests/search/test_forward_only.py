"""Zero-order search and noise level guidance."""

import pytest
import torch

from golden_noise.errors import UserError
from golden_noise.noise import draw_noise
from golden_noise.search.judging import content_seeds, derived_noise
from golden_noise.search.noise_level_guidance import NoiseLevelGuidance
from golden_noise.search.zero_order import ZeroOrder

NOISE = draw_noise([0, 1, 2], (4, 8, 8))


class Brightness:
    """Likes bright images, or dark ones; remembers what it saw."""

    range, version = (-1.0, 1.0), "1"

    def __init__(self, sign=1.0):
        self.sign, self.seen = sign, []

    def score(self, prompts, images):
        self.seen.append(self.sign * images.mean(dim=(1, 2, 3)))
        return self.seen[-1]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_zero_order_keeps_the_best_that_the_verifier_saw(sdxl, prompt, sign):
    metric = Brightness(sign)
    golden = ZeroOrder(metric, rounds=3, neighbours=2).search(NOISE, prompt, sdxl)
    seen = torch.stack(metric.seen)
    assert len(seen) == 7
    found = sign * sdxl.sample(prompt, golden).mean(dim=(1, 2, 3))
    torch.testing.assert_close(found, seen.amax(dim=0), atol=1e-5, rtol=0)
    assert (found >= seen[0] - 1e-6).all()


def test_zero_order_keeps_the_norm_and_stays_near(sdxl, prompt):
    golden = ZeroOrder(Brightness(), rounds=1, neighbours=4, radius=0.33).search(NOISE, prompt, sdxl)
    torch.testing.assert_close(golden.flatten(1).norm(dim=1), NOISE.flatten(1).norm(dim=1))
    cosines = torch.cosine_similarity(golden.flatten(1), NOISE.flatten(1))
    moved = cosines < 0.9999
    assert moved.any() and (cosines[moved] - 0.95).abs().max() < 0.04


def test_a_noise_that_cannot_be_bettered_is_returned_unchanged(sdxl, prompt):
    class Same(Brightness):
        def score(self, prompts, images):
            return torch.zeros(len(images))

    assert torch.equal(ZeroOrder(Same()).search(NOISE, prompt, sdxl), NOISE)


def test_a_neighbour_without_a_score_is_never_chosen(sdxl, prompt):
    class Broken(Brightness):
        def score(self, prompts, images):
            self.seen.append(images)
            return torch.full((len(images),), 0.0 if len(self.seen) == 1 else float("nan"))

    assert torch.equal(ZeroOrder(Broken()).search(NOISE, prompt, sdxl), NOISE)


def test_derived_noise_is_new_for_every_use_and_independent_of_the_batch():
    uses = [derived_noise(NOISE, use) for use in range(3)]
    assert len({tuple(content_seeds(NOISE, use)) for use in range(3)}) == 3
    assert torch.equal(uses[1][1:2], derived_noise(NOISE[1:2], 1))
    together = torch.cat([NOISE, *uses]).flatten(1)
    assert (torch.corrcoef(together) - torch.eye(12)).abs().max() < 0.3


def test_noise_level_guidance_by_hand(ideal, prompt):
    """The prompt changes the prediction by the gap: one round takes it off, cut to the norm .5."""
    pipeline = ideal(gap=0.01)
    direction = 0.01 * pipeline.direction
    for gap, strength in ((0.01, 1.0), (0.01, 2.0)):
        pipeline.gap = gap
        found = NoiseLevelGuidance(10, rounds=1, strength=strength, jitter=0.0).search(NOISE, prompt, pipeline)
        moved = NOISE - strength * direction
        expected = 16 * moved / moved.flatten(1).norm(dim=1)[:, None, None, None]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    pipeline.gap = 10.0
    found = NoiseLevelGuidance(10, rounds=1, jitter=0.0).search(NOISE, prompt, pipeline)
    moved = NOISE - 0.5 * pipeline.direction / pipeline.direction.norm()
    torch.testing.assert_close(found, 16 * moved / moved.flatten(1).norm(dim=1)[:, None, None, None], atol=1e-4, rtol=0)


def test_noise_level_guidance_keeps_the_sphere_and_adds_its_own_noise(ideal, prompt):
    found = NoiseLevelGuidance(10, rounds=5, jitter=0.01).search(NOISE, prompt, ideal())
    torch.testing.assert_close(found.flatten(1).norm(dim=1), torch.full((3,), 16.0))
    unit = 16 * NOISE / NOISE.flatten(1).norm(dim=1)[:, None, None, None]
    cosine = torch.cosine_similarity(found.flatten(1), unit.flatten(1))
    torch.testing.assert_close(cosine, torch.full((3,), (1 / 1.05) ** 0.5), atol=0.01, rtol=0)


@pytest.mark.parametrize(
    "build, named",
    [
        (lambda: ZeroOrder(Brightness(), rounds=0), "search.rounds=0"),
        (lambda: ZeroOrder(Brightness(), neighbours=0), "search.neighbours=0"),
        (lambda: ZeroOrder(Brightness(), radius=0.0), "search.radius=0.0"),
        (lambda: NoiseLevelGuidance(0), "search.steps=0"),
        (lambda: NoiseLevelGuidance(4, rounds=0), "search.rounds=0"),
        (lambda: NoiseLevelGuidance(4, clip=0.0), "search.clip=0.0"),
        (lambda: NoiseLevelGuidance(4, jitter=-1.0), "search.jitter=-1.0"),
    ],
)
def test_senseless_settings(build, named):
    with pytest.raises(UserError) as error:
        build()
    assert named in str(error.value)
