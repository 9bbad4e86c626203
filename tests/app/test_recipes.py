"""Command line and Python make the same picture again."""

import json
import shlex

import numpy as np
import pytest
import torch
from PIL import Image

from golden_noise.app import recipes
from golden_noise.app.searching import settings_of
from golden_noise.app.studio import noises_of, rescaling
from golden_noise.cli.config import job_config
from golden_noise.cli.validation import check
from golden_noise.generation.job import generate
from golden_noise.images import TEXT, about


def run(line, folder):
    """What the shell and generate.py do with a command line; its pictures by the name of their noise and seed."""
    words = shlex.split(line)
    assert shlex.join(words[:2]) == recipes.LINE
    config = job_config("generate", [*words[2:], f"folder={folder}", "name=again"])
    check(config)
    generate(config)
    return {(path.parent.name, int(path.stem.partition("seed")[2])): path for path in folder.glob("*/*seed*.png")}


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def assert_same(pictures, files):
    """The files hold the same pixels, and the same about themselves."""
    for picture in pictures:
        path = files[picture.noise, picture.seed]
        assert (pixels(path) == np.asarray(picture.image)).all()
        assert about(path) == json.loads(picture.texts[TEXT])


@pytest.mark.parametrize(
    "changes", [{}, {"strength": 0.35, "factor": 0.7, "steps": 3, "guidance": 2.5, "prompt": 'a "red" ${circle}'}]
)
def test_what_is_compared(studio, choose, tmp_path, monkeypatch, changes):
    choice = choose(**changes)
    noises = noises_of(choice)
    (pictures,) = studio.draw(choice, noises, rescaling(choice))
    search = recipes.rescaled(choice) if "search" in noises else []
    assert_same(pictures, run(recipes.command(studio.settings, choice, noises, search), tmp_path / "run"))
    monkeypatch.chdir(tmp_path)
    for picture in pictures[1:]:
        own = search if picture.noise == "search" else []
        script = recipes.script(studio.settings, choice, picture.noise, own)
        exec(compile(script, "script", "exec"), {})
        assert (pixels(f"{picture.noise}.png") == np.asarray(picture.image)).all()


def test_a_grid(studio, choose, tmp_path):
    choice = choose(steps=2)
    pictures = [picture for batch in studio.draw(choice, noises_of(choice), count=9) for picture in batch]
    files = run(recipes.command(studio.settings, choice, noises_of(choice), count=9), tmp_path / "run")
    assert_same(pictures, files)


def test_a_search(studio, choose, tmp_path, monkeypatch):
    choice = choose(steps=2)
    config = settings_of(studio, choice, "best_of_n", 3)
    (pictures,) = studio.draw(choice, ["standard", "search"], config)
    own = recipes.searched("best_of_n", config)
    assert_same(pictures, run(recipes.command(studio.settings, choice, ["standard", "search"], own), tmp_path / "run"))
    monkeypatch.chdir(tmp_path)
    exec(compile(recipes.script(studio.settings, choice, "search", own), "script", "exec"), {})
    assert (pixels("search.png") == np.asarray(pictures[1].image)).all()


@pytest.mark.parametrize(
    "prompt",
    ["null", '"a"', "'a b'", "${oc.env:HOME}", "\\${a} \\\\${b}", "a, b=[c] {d}", "$(touch x) `y` ; #", "it's", "三\\"],
)
def test_any_prompt_is_spelled_so_that_it_comes_out_the_same(settings, choose, prompt):
    words = shlex.split(recipes.command(settings, choose(prompt=prompt), ["golden"]))
    assert job_config("generate", words[2:]).prompt == prompt
    script = recipes.script(settings, choose(prompt=prompt), "standard")
    line = next(line for line in script.splitlines() if "pipeline.encode(" in line)
    texts = []
    exec(line, {"pipeline": type("Pipeline", (), {"encode": texts.extend, "draw_noise": lambda seeds: torch.zeros(1)})})
    assert texts == [prompt]


def test_only_what_differs_is_named(settings, choose):
    line = recipes.command(settings, choose(), ["standard", "golden"])
    assert "npnet=" not in line and "strength=" not in line and "noise=" not in line
    assert "strength=0.5" in recipes.command(settings, choose(strength=0.5), ["standard", "golden"])
    assert "strength" not in recipes.command(settings, choose(strength=0.5), ["standard"])
