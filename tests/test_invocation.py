"""How a process says which program it is."""

import sys

import pytest

from golden_noise import invocation


@pytest.mark.parametrize(
    ("argv", "words", "again"),
    [
        (["Clone/train.py", "seed=1"], ["python", "Clone/train.py"], ["Clone/train.py"]),
        (["/bin/golden-noise", "train", "seed=1"], ["golden-noise", "train"], ["-m", "golden_noise", "train"]),
        (
            ["/site-packages/golden_noise/__main__.py", "train", "seed=1"],
            ["golden-noise", "train"],
            ["-m", "golden_noise", "train"],
        ),
    ],
)
def test_a_job_is_started_again_as_it_was(monkeypatch, argv, words, again):
    monkeypatch.setattr(sys, "argv", argv)
    assert invocation.words() == words
    assert invocation.again() == again
    assert invocation.arguments() == ["seed=1"]
    assert invocation.command("collect") == " ".join([*words[:1], "collect" if "-" in words[0] else "collect.py"])


def test_another_program_called_main_is_not_the_package(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/site-packages/pytest/__main__.py", "-q"])
    assert invocation.arguments() == ["-q"]
