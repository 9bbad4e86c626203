"""A small evaluation with every method."""

import numpy as np
import pytest

from golden_noise.evaluation.scores import Scores
from golden_noise.generation.names import CONTROLS

METHODS = ["standard", "search", "npnet", *CONTROLS]


@pytest.fixture
def make_scores():
    """Builds Scores of n items with a 0/1 metric, a graded one, and prompts that need quoting."""

    def build(n: int = 60, methods: list[str] = METHODS, tasks: tuple[str, ...] = ("position", "counting")):
        rng = np.random.default_rng(0)
        items = [
            {
                "index": 100 + i,
                "prompt": f'a "red" circle, number {i}',
                "seed": 7 * i,
                "task": tasks[i % len(tasks)],
            }
            for i in range(n)
        ]
        soft = {method: np.round(rng.random(n), 3) for method in methods}
        strict = {method: (soft[method] > 0.5).astype(float) for method in methods}
        files = {method: [f"images/{method}/{100 + i:06d}.png" for i in range(n)] for method in methods}
        return Scores(items, methods, ["strict", "soft"], {"strict": strict, "soft": soft}, files)

    return build
