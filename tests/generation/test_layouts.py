"""Where images go: as this project, GenEval's and T2I-CompBench's evaluators look for them."""

import json
import re

import pytest

from golden_noise.errors import UserError
from golden_noise.generation.layouts import geneval, geneval_metadata, t2i_compbench
from golden_noise.prompts import Prompt

PROMPTS = [
    Prompt(i, text, 7, {"task": task}) for i, (text, task) in enumerate([("a cup", "color"), ("猫.", "shape")] * 2)
]


def test_geneval_numbers_prompts_and_their_images():
    assert geneval(PROMPTS, 2) == [f"{name[0]:05d}/samples/{name[1]:05d}" for name in [(0, 0), (0, 1), (1, 0), (1, 1)]]


def test_geneval_gets_the_line_of_its_set():
    include = [{"class": "cup", "count": 1, "color": "red"}]
    prompt = Prompt(0, "a photo of a red cup", 7, {"task": "colors", "include": json.dumps(include), "file": "x"})
    line = geneval_metadata(prompt)
    assert line.count("\n") == 1
    assert json.loads(line) == {"tag": "colors", "include": include, "prompt": "a photo of a red cup"}
    assert json.loads(geneval_metadata(Prompt(0, "two\nlines", 0))) == {"prompt": "two\nlines"}


def test_t2i_compbench_finds_the_prompt_before_the_number():
    names = t2i_compbench(PROMPTS, 1)
    assert names == [
        *("color/samples/a cup_000000", "shape/samples/猫._000000"),
        *("color/samples/a cup_000001", "shape/samples/猫._000001"),
    ]
    files = [f"{name}.png".rpartition("/")[2] for name in names]
    assert [file.split("_")[0] for file in files] == [prompt.text for prompt in PROMPTS]  # as its evaluators do
    assert [int(file.split("_")[-1].split(".")[0]) for file in files] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [("a/b", "cannot name a file after"), ("a\nb", "cannot name"), ("é" * 121, "240 bytes"), ("..", "cannot name"),
     ("a_b", "would cut 'a_b' at the '_'")],
)  # fmt: skip
def test_what_cannot_be_in_a_name_is_refused(text, reason):
    with pytest.raises(UserError, match=re.escape(reason)) as error:
        t2i_compbench([Prompt(0, text, 0)], 1)
    assert "\n" not in str(error.value)
    assert t2i_compbench([Prompt(0, "é" * 120, 0, {"task": "non_spatial"})], 1)
    with pytest.raises(UserError):
        t2i_compbench([Prompt(0, "a cup", 0, {"task": "../up"})], 1)
