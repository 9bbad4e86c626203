"""Scores are kept by what they were measured on: metric, prompt and image."""

import torch
from PIL import Image

from golden_noise.evaluation.measuring import Measurement
from golden_noise.prompts import Prompt


class Length:
    """Scores a prompt by its length, whatever the image."""

    range = (0.0, 100.0)
    version = "1"

    def __init__(self):
        self.calls = 0

    def score(self, prompts, images):
        self.calls += 1
        return torch.tensor([float(len(prompt)) for prompt in prompts])


class OneImage:
    """The same picture for every prompt and method."""

    methods = ("standard", "other")

    def __init__(self, folder, texts):
        self.prompts = [Prompt(i, text, i) for i, text in enumerate(texts)]
        self.file = folder / "same.png"
        Image.new("RGB", (8, 8), "red").save(self.file)

    def prepare(self, start, end):
        pass

    def path(self, method, position):
        return self.file


def test_two_prompts_with_the_same_picture_do_not_share_a_score(tmp_path):
    source, metric = OneImage(tmp_path, ["a cat", "a black cat"]), Length()
    found = Measurement(source, {"length": metric}, {}, tmp_path).scores(batch_size=1)
    assert found.values["length"]["standard"].tolist() == [5, 11]
    assert found.values["length"]["other"].tolist() == [5, 11]
    assert metric.calls == 2  # the other method's picture is the same


def test_another_metric_of_the_same_name_measures_again(tmp_path):
    source, metric = OneImage(tmp_path, ["a cat"]), Length()
    for identity in ({"model": "a"}, {"model": "a"}, {"model": "b"}):
        Measurement(source, {"length": metric}, {"length": identity}, tmp_path).scores(batch_size=1)
    assert metric.calls == 2
