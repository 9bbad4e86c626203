"""What searches say of their cost is what they cost."""

from types import SimpleNamespace

import pytest
import torch

from golden_noise.noise import draw_noise
from golden_noise.pipelines.calls import counting
from golden_noise.search.best_of_n import BestOfN
from golden_noise.search.full_inversion import FullInversion
from golden_noise.search.noise_level_guidance import NoiseLevelGuidance
from golden_noise.search.redenoise import Redenoise
from golden_noise.search.reno import ReNO
from golden_noise.search.rescale import Rescale
from golden_noise.search.zero_order import ZeroOrder
from golden_noise.search.zigzag import Zigzag

NOISE = draw_noise([0, 1, 2], (4, 8, 8))
REWARD = SimpleNamespace(
    loss=lambda images, prompts: images.mean(dim=(1, 2, 3)), score=lambda prompts, images: torch.zeros(len(images))
)


@pytest.mark.parametrize(
    ("search", "calls"),
    [
        (Rescale(0.7), 0),
        (Redenoise(10), 3),
        (Redenoise(10, rounds=2), 6),
        (FullInversion(10), 2 * 10 + 3 * 10),
        (FullInversion(10, 2.0, 1.0, refinements=6, back_steps=4), 2 * 10 + 7 * 4),
        (FullInversion(10, 1.0, 2.0, refinements=0), 10 + 2 * 10),
        (Zigzag(10), 4 * 3 + 2 * 3 * 3),
        (NoiseLevelGuidance(10), 2 * 20),
        (BestOfN(REWARD, n=3), 3 * 2),
        (BestOfN(REWARD, n=3, preview_steps=1), 3 * 1),
        (BestOfN(REWARD, n=3, start=Redenoise(10)), 3 * (2 + 3)),
        (ZeroOrder(REWARD, rounds=2, neighbours=3), (1 + 2 * 3) * 2),
        (ReNO(REWARD, iterations=3), (3 * 3 + 1) * 2),
        (ReNO(REWARD, iterations=3, steps=4), (3 * 3 + 1) * 4),
        (ReNO(REWARD, iterations=3, checkpointing=True), (4 * 3 + 1) * 2),
        (ReNO(REWARD, iterations=3, jacobian_steps=0), (3 + 1) * 2),
        (ReNO(REWARD, iterations=3, start=Redenoise(10)), (3 * 3 + 1) * 2 + 3),
    ],
)
def test_calls_per_image(sdxl, prompt, search, calls):
    with counting(sdxl) as counted:
        search.search(NOISE, prompt, sdxl)
    assert counted.total == calls * len(NOISE)
