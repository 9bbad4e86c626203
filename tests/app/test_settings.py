"""What the app is started with."""

import pytest

from golden_noise.app.settings import Settings, networks
from golden_noise.errors import UserError


def test_the_miniature_is_complete(settings):
    assert settings.networks == {"bundled": "package:shapes/weights/npnet"}
    assert settings.metrics == ("strict", "soft", "reward")
    assert set(settings.searches) == {"noise_level_guidance", "redenoise", "zero_order", "best_of_n", "reno"}
    assert (settings.config.prompt, settings.config.seed) == ("a blue triangle left of a red circle", 3)


def test_another_pipeline_is_not_judged_by_the_miniatures_metrics():
    settings = Settings.of(["pipeline=sdxl", "npnet=sdxl.pth", "device=cuda"])
    assert settings.networks == {"sdxl.pth": "sdxl.pth"} and settings.metrics == ()
    assert set(settings.searches) == {"noise_level_guidance", "redenoise"}
    assert settings.given == ("pipeline=sdxl", "device=cuda")
    judged = Settings.of(["pipeline=sdxl", "npnet=sdxl.pth", "metric=[pickscore,aes]", "reward=pickscore"])
    assert judged.metrics == ("pickscore", "aes") and "reno" in judged.searches


def test_the_first_choice_is_the_owners():
    settings = Settings.of(["prompt=two crosses", "seed=5", "strength=0.5", "pipeline.steps=6"])
    config = settings.config
    assert (config.prompt, config.seed, config.strength, config.pipeline.steps) == ("two crosses", 5, 0.5, 6)
    assert settings.given == ()


def test_a_network_of_the_pipeline_that_is_set_stays_in_the_command_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # without trainings
    settings = Settings.of(["pipeline.npnet=mine.pth"])
    assert settings.networks == {"bundled": "mine.pth"} and settings.given == ("pipeline.npnet=mine.pth",)


def test_trainings_of_this_pipeline_are_offered_the_newest_first(tmp_path):
    for name, pipeline in {"a": "shapes", "b/c": "shapes", "d": "sdxl", "e": "}"}.items():
        folder = tmp_path / "train" / name / "npnet/best"
        folder.mkdir(parents=True)
        (folder / "training.yaml").write_text(f"pipeline: {{name: {pipeline}}}")
    settings = Settings.of([f"paths.outputs={tmp_path}", f"npnet={tmp_path}/train/a"])
    assert {*settings.networks} == {"a", "bundled", "b/c"} and next(iter(settings.networks)) == "a"
    assert networks(settings.config)["b/c"] == str(tmp_path / "train/b/c")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["pipeline=sdxl"], "pipeline=sdxl has no NPNet of its own: add npnet=FOLDER"),
        (["prompts=shapes_test"], "prompts=shapes_test: the app sets prompts itself"),
        (["search.rounds=3"], "the app sets search itself"),
        (["noise=golden"], "the app sets noise itself"),
        (["strength=3"], "must be a number from 0 to 2"),
    ],
)
def test_mistakes_are_named_before_anything_is_loaded(given, words):
    with pytest.raises(UserError, match=words):
        Settings.of(given)
