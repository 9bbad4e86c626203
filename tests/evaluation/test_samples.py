"""Folders that were filled for GenEval's and T2I-CompBench's evaluators."""

import json
import shutil

import pytest
from PIL import Image

from golden_noise.errors import UserError
from golden_noise.evaluation.folders import Folders
from golden_noise.images import TEXT, save_png
from golden_noise.prompts import Prompt

LINES = [{"tag": "colors", "include": [], "prompt": "a red 猫"}, {"tag": "counting", "prompt": "two cups"}]
PROMPTS = [Prompt(i, line["prompt"], i, {"task": line["tag"]}) for i, line in enumerate(LINES)]


@pytest.fixture
def fill(tmp_path):
    """Fills a folder with images by their names in it, and GenEval's metadata."""

    def filled(folder, *names, metadata=()):
        for name in names:
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (6, 4), "red").save(path)
        for number, line in enumerate(metadata):
            (tmp_path / folder / f"{number:05d}/metadata.jsonl").write_text(f"{json.dumps(line)}\n")
        return str(tmp_path / folder)

    return filled


@pytest.fixture
def geneval(fill):
    """Two methods' folders; the second one's names have fewer digits, as other programs write them."""
    first = [f"0000{i}/samples/0000{j}.png" for i in (0, 1) for j in (0, 1)]
    second = [f"{i:05d}/samples/{j:04d}.png" for i in (0, 1) for j in (0, 1)]
    names = {"standard": [*first, "00000/grid.png"], "npnet": second}
    return {method: fill(method, *files, metadata=LINES) for method, files in names.items()}


def refusal(folders, prompts):
    with pytest.raises(UserError) as error:
        Folders(folders, prompts)
    assert "\n" not in str(error.value)
    return str(error.value)


def items(source):
    return [(prompt.index, prompt.text, prompt.seed, prompt.tags["task"]) for prompt in source.prompts]


def test_genevals_folders_state_their_prompts(geneval, tmp_path):
    source = Folders(geneval, None)
    texts = [("a red 猫", "colors"), ("two cups", "counting")]
    assert items(source) == [(2 * i + j, text, j, task) for i, (text, task) in enumerate(texts) for j in (0, 1)]
    assert source.path("npnet", 3) == tmp_path / "npnet/00001/samples/0001.png"
    assert source.path("standard", 3) == tmp_path / "standard/00001/samples/00001.png"


def test_genevals_folders_are_matched_with_a_prompt_file_by_number(geneval, tmp_path):
    source = Folders(geneval, PROMPTS)
    assert [prompt.text for prompt in source.prompts] == [text for text in ("a red 猫", "two cups") for _ in (0, 1)]
    assert [prompt.index for prompt in source.prompts] == [0, 1, 2, 3]
    message = refusal(geneval, PROMPTS[::-1])
    assert "00000/samples/00000.png is of 'a red 猫', not of 'two cups'" in message
    assert "images without a prompt: 1/0, 1/1" in refusal(geneval, PROMPTS[:1])
    assert "lacks images: 2/0" in refusal(geneval, [*PROMPTS, Prompt(2, "more", 2)])


def test_what_a_folder_lacks_or_has_too_much_is_named(geneval, fill, tmp_path):
    (tmp_path / "npnet/00001/samples/0001.png").unlink()
    assert "npnet lacks images: 1/1" in refusal(geneval, None)
    fill("npnet", "00001/samples/1.png", "00001/samples/001.png", "00000/samples/0.heic.png")
    message = refusal(geneval, None)
    assert "has one name twice: 001.png and 1.png" in message and "0/0.heic" in message


def test_images_need_metadata_or_a_name_with_a_prompt(geneval, tmp_path):
    metadata = tmp_path / "standard/00000/metadata.jsonl"
    metadata.write_text(json.dumps({"prompt": "another"}))
    assert "standard/00000/samples/00000.png is of 'another', not of 'a red 猫'" in refusal(geneval, None)
    metadata.write_text("")
    assert "metadata.jsonl holds no prompts" in refusal(geneval, None)
    metadata.write_text(f"{json.dumps(LINES[0])}\n" * 2)
    assert "has 2 prompts: it needs the one of its images" in refusal(geneval, None)
    for folder in geneval.values():
        shutil.copy(tmp_path / "npnet/00001/metadata.jsonl", f"{folder}/00000")
        (tmp_path / folder / "00001/metadata.jsonl").unlink()
    assert "has neither metadata.jsonl in" in refusal(geneval, None)


def test_t2i_compbenchs_names_state_their_prompts(fill, tmp_path):
    names = ["color/samples/a cup._000000.png", "color/samples/猫_000001.png", "non_spatial/samples/a cup._000000.png"]
    folders = {method: fill(method, *names) for method in ("standard", "npnet")}
    source = Folders(folders, None)
    assert items(source) == [(0, "a cup.", 0, "color"), (1, "猫", 1, "color"), (2, "a cup.", 0, "non_spatial")]
    assert source.path("npnet", 2) == tmp_path / "npnet" / names[2]
    assert "matches no prompt" in refusal(folders, PROMPTS)


def test_an_image_of_this_project_says_its_seed(fill, tmp_path):
    folder = fill("standard", "00000/samples/00000.png", metadata=LINES[:1])
    facts = {TEXT: json.dumps({"prompt": "a red 猫", "seed": 2**40})}
    save_png(Image.new("RGB", (6, 4)), tmp_path / "standard/00000/samples/00000.png", facts)
    assert items(Folders({"standard": folder}, None)) == [(0, "a red 猫", 2**40, "colors")]
