"""The pictures behind the page."""

import json

import numpy as np
import pytest

from golden_noise.app.settings import Settings
from golden_noise.app.studio import Studio, noises_of, rescaling
from golden_noise.errors import UserError
from golden_noise.images import TEXT


def pixels(picture):
    return np.asarray(picture.image)


def drawn(studio, choice, count=1):
    return [picture for batch in studio.draw(choice, noises_of(choice), rescaling(choice), count) for picture in batch]


def test_standard_and_golden_with_scores_and_cost(studio, choose):
    standard, golden = drawn(studio, choose())
    assert (standard.noise, golden.noise) == ("standard", "golden")
    assert (standard.calls, golden.calls) == (4, 5)
    assert golden.scores["strict"] == 1 > standard.scores["strict"]
    assert list(golden.scores) == ["strict", "reward"]
    assert (pixels(standard) != pixels(golden)).any()


def test_strength_0_is_standard_noise_to_the_pixel(studio, choose):
    standard, golden = drawn(studio, choose(strength=0.0))
    assert (pixels(standard) == pixels(golden)).all()


def test_a_factor_adds_a_third_picture(studio, choose):
    standard, _, scaled = drawn(studio, choose(factor=0.7))
    assert scaled.noise == "search" and scaled.calls == 4
    assert (pixels(standard) != pixels(scaled)).any()


def test_seeds_are_drawn_in_batches(studio, choose):
    batches = list(studio.draw(choose(steps=1), ["standard"], count=9))
    assert [len(batch) for batch in batches] == [8, 1]  # pipeline.batch_size.generate
    assert [picture.seed for batch in batches for picture in batch] == list(range(3, 12))


def test_a_metric_that_cannot_judge_a_prompt_gives_no_score(studio, choose):
    standard, _ = drawn(studio, choose(prompt="a zebra on the moon"))
    assert standard.scores["strict"] is None and isinstance(standard.scores["reward"], float)


def test_steps_and_guidance_of_one_visitor_are_not_the_next_ones(studio, choose):
    (first,) = studio.draw(choose(steps=2, guidance=3.0), ["standard"])
    (second,) = studio.draw(choose(), ["standard"])
    facts = [json.loads(picture.texts[TEXT])["made_by"]["pipeline"] for (picture,) in (first, second)]
    assert [(fact["steps"], fact["guidance"]) for fact in facts] == [(2, 3), (4, 1)]
    assert (first[0].calls, second[0].calls) == (4, 4)


@pytest.fixture
def with_damaged(tmp_path):
    """A studio that offers a network that is none."""
    run = tmp_path / "train/study/broken/npnet/best"
    run.mkdir(parents=True)
    (run / "training.yaml").write_text("pipeline: {name: shapes}")
    return Studio(Settings.of(["device=cpu", "metric=redness", f"paths.outputs={tmp_path}"]))


def test_a_network_that_cannot_be_loaded_says_nothing_of_the_server(with_damaged, choose, capsys, tmp_path):
    assert list(with_damaged.settings.networks) == ["bundled", "study/broken"]
    for _ in range(2):
        with pytest.raises(UserError, match=r"^The network study/broken cannot be loaded: choose another one\.$"):
            drawn(with_damaged, choose(network="study/broken", scores=()))
    assert str(tmp_path) in capsys.readouterr().err
    assert len(drawn(with_damaged, choose(scores=("redness",)))) == 2
