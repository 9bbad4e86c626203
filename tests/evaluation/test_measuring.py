"""Which scores are used again: those of the same image, prompt, metric and weights."""

import pytest
import torch
from PIL import Image

from golden_noise import identity
from golden_noise.evaluation.measuring import Measurement
from golden_noise.prompts import Prompt


class Length:
    """Scores an image by its red and its prompt by its length, and counts what it is asked."""

    range, version = (0.0, 1e9), "1"

    def __init__(self):
        self.asked = []

    def score(self, prompts, images):
        self.asked += prompts
        return images[:, 0].mean(dim=(1, 2)) + torch.tensor([float(len(prompt)) for prompt in prompts])


class Found:
    def __init__(self, folder, texts):
        self.folder, self.methods = folder, ["standard"]
        self.prompts = [Prompt(i, text, 0) for i, text in enumerate(texts)]

    def draw(self, positions):
        pass

    def path(self, method, position):
        return self.folder / f"{position}.png"


@pytest.fixture
def measure(tmp_path):
    """Scores of two images of the same pixels, and which prompts were asked for."""
    for i in range(2):
        Image.new("RGB", (8, 8), "red").save(tmp_path / f"{i}.png")

    def scores(texts, settings=None, version="1"):
        metric = Length()
        metric.version = version
        measurement = Measurement(Found(tmp_path, texts), {"length": metric}, {"length": settings or {}}, tmp_path)
        return measurement.scores(2).values["length"]["standard"].tolist(), metric.asked

    return scores


def test_an_image_of_another_prompt_is_scored_again(measure):
    assert measure(["a", "bb"]) == ([2, 3], ["a", "bb"])
    assert measure(["a", "bb"]) == ([2, 3], [])
    assert measure(["a", "cccc"]) == ([2, 5], ["a", "cccc"])


def test_another_metric_version_or_file_scores_again(measure, tmp_path):
    measure(["a", "bb"], {"scale": 1})
    assert measure(["a", "bb"], {"scale": 1, "device": "cuda"})[1] == []
    assert measure(["a", "bb"], {"scale": 2})[1] == ["a", "bb"]
    assert measure(["a", "bb"], {"scale": 1}, version="2")[1] == ["a", "bb"]
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"one")
    measure(["a", "bb"], {"model": str(weights)})
    weights.write_bytes(b"two")
    assert measure(["a", "bb"], {"model": str(weights)})[1] == ["a", "bb"]


def test_another_algorithm_scores_again(measure, monkeypatch):
    measure(["a", "bb"])
    monkeypatch.setitem(identity.ALGORITHM, "scores", 2)
    assert measure(["a", "bb"])[1] == ["a", "bb"]
