"""Images from elsewhere: matched in every usual way, and every mistake named in one message."""

import json
from dataclasses import replace

import pytest
from PIL import Image

from golden_noise.errors import UserError
from golden_noise.evaluation.folders import Folders
from golden_noise.images import TEXT, save_png
from golden_noise.prompts import Prompt

PROMPTS = [Prompt(i, text, i) for i, text in enumerate(["a cat", "a dog", "a boat"])]


@pytest.fixture
def fill(tmp_path):
    def filled(folder, *names):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            Image.new("RGB", (4, 4), "red").save(tmp_path / folder / name)
        return str(tmp_path / folder)

    return filled


def refusal(folders, prompts=PROMPTS):
    with pytest.raises(UserError) as error:
        Folders(folders, prompts)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_numbers_are_the_prompts_positions(fill):
    folders = {
        "standard": fill("origin", "0.png", "1.png", "2.png"),
        "npnet": fill("optim", "000.png", "01.jpg", "2.webp"),
    }
    source = Folders(folders, PROMPTS)
    assert (source.methods, source.prompts) == (["standard", "npnet"], PROMPTS)
    assert [source.path("npnet", i).name for i in range(3)] == ["000.png", "01.jpg", "2.webp"]


def test_ten_comes_after_nine(fill):
    folder = fill("a", *(f"{i}.png" for i in range(12)))
    source = Folders({"standard": folder}, [Prompt(i, str(i), i) for i in range(12)])
    assert [source.path("standard", i).stem for i in range(12)] == [str(i) for i in range(12)]


def test_without_prompts_the_names_are_the_prompts(fill):
    folders = {
        "standard": fill("a", "a_red_car.png", "ein Hügel.png"),
        "other": fill("b", "ein Hügel.jpg", "a_red_car.jpg"),
    }
    source = Folders(folders, None)
    assert [prompt.text for prompt in source.prompts] == ["a red car", "ein Hügel"]
    assert [source.path("other", i).name for i in (0, 1)] == ["a_red_car.jpg", "ein Hügel.jpg"]


def test_a_prompt_file_may_name_the_images(fill):
    prompts = [Prompt(0, "a cat", 0, {"file": "train/zebra.png"}), Prompt(1, "a dog", 1, {"file": "ant.png"})]
    source = Folders({"standard": fill("a", "ant.png", "zebra.png")}, prompts)
    assert [source.path("standard", i).name for i in (0, 1)] == ["zebra.png", "ant.png"]
    doubled = [Prompt(i, "x", i, {"file": "ant.png"}) for i in (0, 1)]
    assert "two prompts name the image 'ant'" in refusal({"standard": fill("a")}, doubled)


def test_a_prompt_file_may_name_the_images_of_every_folder(fill):
    folders = {"standard": fill("run/standard", "b.png", "a.png"), "npnet": fill("run/golden", "b.png", "a.png")}
    lines = [(f"{kind}/{name}.png", name) for name in "ba" for kind in ("standard", "golden")]
    prompts = [Prompt(i, f"prompt {name}", 7, {"file": file, "task": name}) for i, (file, name) in enumerate(lines)]
    source = Folders(folders, prompts)
    assert [(p.index, p.text, p.tags["task"]) for p in source.prompts] == [(0, "prompt b", "b"), (1, "prompt a", "a")]
    assert [source.path("npnet", i).name for i in (0, 1)] == ["b.png", "a.png"]
    other = replace(prompts[1], text="another")
    assert "two prompts name the image 'b'" in refusal(folders, [prompts[0], other, *prompts[2:]])


def test_images_that_say_they_are_of_other_prompts_are_refused(fill, tmp_path):
    folder = fill("a", "0.png", "1.png", "2.png")
    for i, text in enumerate(["a cat", "a dog", "a car"]):
        facts = json.dumps({"prompt": text}) if i else "[]"  # what another program may have written there
        save_png(Image.new("RGB", (4, 4)), tmp_path / f"a/{i}.png", {TEXT: facts})
    message = refusal({"standard": folder})
    assert "a/2.png is of 'a car', not of 'a boat'" in message
    assert "0.png" not in message and "1.png" not in message


def test_every_mistake_is_named_in_one_message(fill, tmp_path):
    standard = fill("origin", "0.png", "1.png", "1.jpg", "7.png")
    golden = fill("optim", "0.png", "1.png", "2.png")
    message = refusal({"standard": standard, "npnet": golden})
    assert "origin lacks images: 2" in message
    assert "images without a prompt: 7.png" in message
    assert "1.jpg and 1.png" in message
    assert "optim" not in message


def test_unreadable_images_are_all_named(fill, tmp_path):
    folder = fill("a", "0.png", "1.png", "2.png")
    whole = (tmp_path / "a/1.png").read_bytes()
    (tmp_path / "a/1.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "a/2.png").write_text("no image")
    message = refusal({"standard": folder})
    assert "1.png" in message and "2.png" in message and "0.png" not in message


def test_long_lists_are_cut_with_their_number(fill):
    message = refusal({"standard": fill("a", "0.png")}, [Prompt(i, "x", i) for i in range(2_000)])
    assert "lacks images: 1, 2, 3, 4, 5 and 1,994 more" in message
    assert "2,000 prompts: are these the images' own" in message


def test_names_that_match_nothing(fill):
    message = refusal({"standard": fill("a", "cat.png")}, PROMPTS)
    assert "'cat'" in message and "file_name" in message and "evaluation.prompts=null" in message
    assert "b lacks images: cat" in refusal({"standard": fill("a", "cat.png"), "x": fill("b", "dog.png")}, None)


def test_folders_that_are_none_or_empty(fill, tmp_path):
    assert "no folder" in refusal({"standard": str(tmp_path / "nowhere")})
    assert "no images in" in refusal({"standard": fill("empty")})


def test_other_files_and_hidden_ones_are_left_alone(fill, tmp_path):
    folder = fill("a", "0.png", "1.png", "2.png")
    for name in ("grid.txt", ".DS_Store", "._0.png"):
        (tmp_path / "a" / name).write_text("x")
    assert Folders({"standard": folder}, PROMPTS).path("standard", 2).name == "2.png"


def test_images_that_would_be_passed_over_are_named(fill, tmp_path):
    folder = fill("a", "0.gif", "1.bmp", "2.tif")
    assert Folders({"standard": folder}, PROMPTS).path("standard", 2).name == "2.tif"
    fill("a/more", "3.png")
    (tmp_path / "a/4.heic").write_text("x")
    message = refusal({"standard": folder})
    assert "not read: 4.heic, more/3.png" in message
    assert "origin/0.png" in refusal({"standard": str(tmp_path / "b")} if fill("b/origin", "0.png") else {})


def test_a_file_of_several_images_is_refused(fill, tmp_path):
    folder = fill("a", "0.png", "1.png")
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a/2.gif", save_all=True, append_images=frames[1:])
    assert "2.gif (2 images in one file)" in refusal({"standard": folder})


def test_images_with_more_than_8_bits_are_refused_and_not_cut_off(fill, tmp_path):
    folder = fill("a", "0.png", "1.png")
    Image.new("I;16", (4, 4), 30000).save(tmp_path / "a/2.png")
    assert "2.png (I;16: more than 8 bits per channel" in refusal({"standard": folder})
