import numpy as np
import pytest
import torch
from PIL import Image

from golden_noise.evaluation.diversity import SEEDS, feature_distance, pixel_distance, seed_groups


def flat(level, size=(8, 8)):
    return Image.new("RGB", size, (level,) * 3)


def test_groups_are_the_prompts_with_several_seeds():
    assert seed_groups(["a", "b", "a", "c", "b", "a"]) == [[0, 2, 5], [1, 4]]
    assert seed_groups(["a", "b"]) == []
    assert seed_groups(["a"] * 50) == [list(range(SEEDS))]


def test_pixel_distance_is_the_mean_over_pairs():
    assert pixel_distance([flat(0), flat(255)]) == pytest.approx(1)
    assert pixel_distance([flat(7), flat(7)]) == 0
    assert pixel_distance([flat(0), flat(51), flat(255)]) == pytest.approx((0.2 + 1 + 0.8) / 3)


def test_large_images_are_compared_by_their_composition():
    rng = np.random.default_rng(0)
    grain = [Image.fromarray(rng.integers(0, 256, (512, 512, 3), dtype=np.uint8)) for _ in range(2)]
    assert pixel_distance(grain) < 0.1  # the grain itself differs by 0.4
    assert pixel_distance([flat(0, (512, 512)), flat(255, (512, 512))]) == pytest.approx(1)
    assert pixel_distance([flat(0, (30, 40)), flat(255, (40, 30))]) == pytest.approx(1)


def test_feature_distance_is_one_minus_the_cosine():
    assert feature_distance(torch.tensor([[1.0, 0], [0, 2.0]])) == pytest.approx(1)
    assert feature_distance(torch.tensor([[1.0, 0], [-3.0, 0]])) == pytest.approx(2)
    a, b, c = features = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    pairs = [1 - torch.cosine_similarity(x, y, dim=0) for x, y in ((a, b), (a, c), (b, c))]
    assert feature_distance(features) == pytest.approx(torch.stack(pairs).mean().item())
