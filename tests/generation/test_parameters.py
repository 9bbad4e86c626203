"""What other programs read in an image: A1111's text, taken apart by its own rule."""

import json
import re
from types import SimpleNamespace

import pytest

from golden_noise.generation.parameters import parameters
from golden_noise.prompts import Prompt

VALUE = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


def taken_apart(text):
    """Prompt, negative prompt and values, as web UIs read them: the last line has the values."""
    *lines, last = text.strip().split("\n")
    start = next((i for i, line in enumerate(lines) if line.startswith("Negative prompt:")), len(lines))
    negative = "\n".join(lines[start:]).removeprefix("Negative prompt:").strip()
    found = VALUE.findall(last)
    values = {name: json.loads(value) if value.startswith('"') else value for name, value in found}
    return "\n".join(lines[:start]).strip(), negative, values


class EulerDiscreteScheduler:
    """A sampler, of which only the name counts."""


class OwnScheduler:
    """One that A1111 does not know."""


def a_pipeline(negative="", sampler=EulerDiscreteScheduler, guidance=5.5):
    scheduler = SimpleNamespace(scheduler=sampler())
    size = {"height": 64, "width": 96}
    return SimpleNamespace(pipe=scheduler, steps=30, guidance=guidance, negative_prompt=negative, **size)


@pytest.mark.parametrize("text", ["a cup", 'a "cup", red: (one)', "two\nlines\n\nand four", "🦊 é 猫", "x" * 100_000])
@pytest.mark.parametrize("negative", ["", "blurry, bad\nhands"])
def test_every_prompt_is_read_back(text, negative):
    written = parameters(Prompt(0, text, 2**40), "golden", a_pipeline(negative), "ORG/NAME", 'own, "best": one')
    prompt, found, values = taken_apart(written)
    assert (prompt, found) == (text, negative)
    assert values | {"Version": ""} == {
        **{"Steps": "30", "Sampler": "Euler", "CFG scale": "5.5", "Seed": str(2**40), "Size": "96x64"},
        **{"Model": "NAME", "RNG": "CPU", "Starting noise": "golden", "NPNet": 'own, "best": one', "Version": ""},
    }


def test_names_that_a1111_does_not_know_and_whole_numbers():
    pipeline = a_pipeline(sampler=OwnScheduler, guidance=1.0)
    values = taken_apart(parameters(Prompt(0, "a", 0), "standard", pipeline, "folder/own/", None))[2]
    assert (values["Sampler"], values["CFG scale"], values["Model"]) == ("Own", "1", "own")
    assert "NPNet" not in values
