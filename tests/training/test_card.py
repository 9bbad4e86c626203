"""The model card that training writes."""

import re

import numpy as np
import pytest
from huggingface_hub import ModelCard
from hydra.utils import instantiate

from golden_noise.evaluation.results import summarise
from golden_noise.evaluation.scores import Scores
from golden_noise.npnet import DenoiserNPNet, NPNet
from golden_noise.training.card import write_card


@pytest.fixture
def npnet():
    return NPNet((4, 8, 8), (16, 128))


def test_it_says_what_was_trained_on_what(compose_job, npnet, tmp_path):
    config = compose_job("train", "pipeline.model.source=org/model", "search.rounds=3", "recipe.lr=2e-4")
    write_card(tmp_path, npnet, config, None)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.base_model == "org/model"
    assert "golden-noise" in card.data.tags
    values = ("org/model", "rounds=3", "AdamW(lr=0.0002", "4 x 8 x 8", "16 x 128", "| pairs | pairs |")
    for words in (*values, "Not evaluated"):
        assert words in card.text, words
    assert str(tmp_path) not in card.text


@pytest.mark.parametrize("shared", [False, True])
def test_its_code_runs(compose_job, npnet, tmp_path, shared):
    config = compose_job("train")
    if shared:
        npnet = DenoiserNPNet(instantiate(config.pipeline.model), rank=4)
    npnet.save_pretrained(tmp_path)
    write_card(tmp_path, npnet, config, None)
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "README.md").read_text(), re.DOTALL)
    names = {"prompt": "a red circle", "pipe": instantiate(config.pipeline.model).pipe}
    exec(code.replace("FOLDER_OR_HUB_ID", str(tmp_path)), names)
    assert names["image"].size == (32, 32)


@pytest.fixture
def summary():
    """Of NPNet, which gains, and a control that changes nothing."""
    rng = np.random.default_rng(0)
    standard = rng.normal(size=200)
    values = {"standard": standard, "npnet": standard + rng.normal(0.5, 0.1, 200), "rescaled": standard}
    items = [{"index": i, "prompt": f"p{i}", "seed": i, "task": "one" if i % 2 else "two"} for i in range(200)]
    return summarise(Scores(items, list(values), ["soft"], {"soft": values}), {}, {}, "")


def test_results_are_a_table_in_the_order_of_the_methods_and_a_verdict(compose_job, npnet, summary, tmp_path):
    write_card(tmp_path, npnet, compose_job("train"), summary)
    text = ModelCard.load(tmp_path / "README.md").text
    lines = text.partition("## Results")[2].splitlines()
    rows = [line.split(" | ")[0].removeprefix("| ") for line in lines if "|" in line]
    assert rows == ["starting noise", "---", "standard noise", "**NPNet**", "rescaled noise"]
    assert re.search(r"\*\*NPNet\*\* \| -?\d\.\d{3}, \+0\.\d{3} \[\+0\.\d{3}, \+0\.\d{3}\] \|", text)
    assert "200 images" in text
    assert "- NPNet gains +0." in text
    assert "- soft scores every pair the same from standard noise and from rescaled noise" in text
    assert ModelCard.load(tmp_path / "README.md").data.base_model is None
