"""The model card that training writes."""

import re

import pytest
from huggingface_hub import ModelCard
from hydra.utils import instantiate

from golden_noise.npnet import DenoiserNPNet, NPNet
from golden_noise.training.card import write_card

COMPARISON = {"metric": "strict", "a": "standard", "b": "npnet", "n": 50, "difference": 0.0312, "ci95": [0.01, 0.05]}


@pytest.fixture
def npnet():
    return NPNet((4, 8, 8), (16, 128))


def test_it_says_what_was_trained_on_what(compose_job, npnet, tmp_path):
    config = compose_job("train", "pipeline.model.source=org/model", "search.rounds=3", "pipeline.recipe.lr=2e-4")
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
    names = {"prompts": ["a red circle"], "seeds": [3], "pipe": instantiate(config.pipeline.model).pipe}
    exec(code.replace("FOLDER_OR_HUB_ID", str(tmp_path)), names)
    assert len(names["images"]) == 1


def test_results_are_those_over_all_tasks(compose_job, npnet, tmp_path):
    rows = [COMPARISON | {"task": "all"}, COMPARISON | {"task": "position", "difference": 0.5}]
    write_card(tmp_path, npnet, compose_job("train"), {"comparisons": rows})
    card = ModelCard.load(tmp_path / "README.md")
    assert "| strict | npnet - standard | 50 | +0.0312 | [+0.01, +0.05] |" in card.text
    assert "0.5 " not in card.text
    assert card.data.base_model is None
