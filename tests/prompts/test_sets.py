"""Published sets of prompts, by name: small files of our own in the form of each."""

import json

import pytest
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from golden_noise.cli.config import job_config
from golden_noise.cli.validation import check
from golden_noise.errors import UserError

DRAWBENCH = 'Prompts,Category\r\n"A green cup, and a saucer.",Colors\r\nÜber 猫.,Rare Words\r\n\r\nA "STOP".,Text\r\n'
PARTI = 'Prompt\tCategory\tChallenge\tNote\n42\tAbstract\tBasic\t\na "STOP" sign\tArts\tWriting & Symbols\tours\n'
LINES = [
    {"tag": "counting", "include": [{"class": "cat", "count": 2}], "exclude": [{"class": "cat", "count": 3}]},
    {"tag": "colors", "include": [{"class": "cup", "count": 1, "color": "red"}]},
]
GENEVAL = "".join(
    json.dumps(line | {"prompt": text}) + "\n"
    for line, text in zip(LINES, ["a photo of two cats", "a photo of a red cup"], strict=True)
)


@pytest.fixture
def read(tmp_path):
    """Reads a set by its name, as a job does."""

    def read_set(name, *overrides, path):
        quoted = str(path).replace("'", "\\'")
        chosen = [f"folder={tmp_path}", f"prompts={name}", f"prompts.path='{quoted}'"]
        config = job_config("generate", [*chosen, *overrides])
        check(config)
        return instantiate(config.prompts)

    return read_set


def refusal(read, *arguments, **keywords):
    with pytest.raises((UserError, InstantiationException)) as error:
        read(*arguments, **keywords)
    mistake = error.value.__cause__ if isinstance(error.value, InstantiationException) else error.value
    assert isinstance(mistake, UserError) and "\n" not in str(mistake)
    return str(mistake)


def tasks(prompts):
    return [(prompt.text, prompt.tags.get("task")) for prompt in prompts]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_drawbench(read, write, mark):
    found = read("drawbench", path=write("Draw Bench (1).csv", mark + DRAWBENCH))
    expected = [("A green cup, and a saucer.", "Colors"), ("Über 猫.", "Rare Words"), ('A "STOP".', "Text")]
    assert tasks(found) == expected


def test_equal_prompts_are_kept_and_get_noises_of_their_own(read, write):
    first, second = read("drawbench", path=write("d.csv", "Prompts,Category\na cup,Colors\na cup,Counting\n"))
    assert (first.text, first.tags, first.seed != second.seed) == ("a cup", {"task": "Colors"}, True)


def test_partiprompts_by_either_of_its_groups(read, write):
    path = write("PartiPrompts.tsv", PARTI)
    assert tasks(read("partiprompts", path=path)) == [("42", "Abstract"), ('a "STOP" sign', "Arts")]
    other = read("partiprompts", "prompts.category=Challenge", path=path)
    assert [prompt.tags for prompt in other] == [
        {"task": "Basic", "challenge": "Basic"},
        {"task": "Writing & Symbols", "challenge": "Writing & Symbols"},
    ]


def test_geneval_keeps_what_its_evaluator_needs(read, write):
    found = read("geneval", path=write("evaluation_metadata.jsonl", GENEVAL))
    assert tasks(found) == [("a photo of two cats", "counting"), ("a photo of a red cup", "colors")]
    kept = [{name: json.loads(prompt.tags[name]) for name in prompt.tags if name != "task"} for prompt in found]
    assert kept == [{name: line[name] for name in line if name != "tag"} for line in LINES]


def test_hpdv2_is_a_folder_of_four_lists_or_one_of_them(read, write, tmp_path):
    for style in ("anime", "concept-art", "paintings", "photo"):
        write(f"{style}.json", json.dumps([f"ours, of {style}", "the same in all"], ensure_ascii=False))
    found = read("hpdv2", path=tmp_path)
    assert tasks(found)[2:4] == [("ours, of concept-art", "concept-art"), ("the same in all", "concept-art")]
    assert len({prompt.seed for prompt in found if prompt.text == "the same in all"}) == 4
    assert tasks(read("hpdv2", path=tmp_path / "photo.json"))[0] == ("ours, of photo", "photo")
    (tmp_path / "paintings.json").unlink()
    assert "lacks paintings.json: it needs anime.json, concept-art.json" in refusal(read, "hpdv2", path=tmp_path)
    message = refusal(read, "hpdv2", path=write("test.json", "[]"))
    assert "test.json is no file of this set: give one of anime.json, concept-art.json" in message


def test_t2i_compbench_is_a_folder_of_texts_or_one_of_them(read, write, tmp_path):
    for name in ("color", "shape", "texture", "spatial", "non_spatial", "complex", "3d_spatial", "numeracy"):
        write(f"{name}_val.txt", f"an oval {name}\tan extra\r\n\r\na cup\n")
    found = read("t2i_compbench", path=tmp_path)
    assert tasks(found)[:2] == [("an oval color", "color"), ("a cup", "color")]
    assert tasks(found)[8] == ("an oval non_spatial", "non_spatial")
    assert len(found) == 12
    one = read("t2i_compbench", path=write("non_spatial_train.txt", "a cup\n"))
    assert tasks(one) == [("a cup", "non_spatial")]
    assert "is no file of this set" in refusal(read, "t2i_compbench", path=tmp_path / "3d_spatial_val.txt")
    more = read("t2i_compbench++", path=tmp_path)
    assert (len(more), tasks(more)[-1]) == (16, ("a cup", "numeracy"))


@pytest.mark.parametrize(
    ("name", "file", "content", "expected"),
    [
        ("drawbench", "p.tsv", PARTI, "lacks Prompts: it needs Prompts, Category (columns: prompt, category, ch"),
        ("drawbench", "p.txt", "a cup\n", "plain text, lacks Prompts, Category: it needs Prompts, Category (c"),
        ("partiprompts", "d.csv", DRAWBENCH, "lacks Prompt, Challenge: it needs Prompt, Category, Challenge"),
        ("geneval", "g.txt", "a photo of a cat\n", "lacks prompt, tag, include"),
        ("geneval", "g.json", '["a photo of a cat"]', "entry 1 lacks prompt, tag, include"),
        ("geneval", "g.jsonl", GENEVAL + '{"prompt": "a cat"}\n', "line 3 lacks tag, include: it needs prompt, tag"),
        ("drawbench", "d.csv", "", "lacks Prompts, Category: it needs Prompts, Category (columns: none)"),
        ("drawbench", "d.csv", "Prompts,Category\n", "holds no prompts"),
        ("t2i_compbench", "color_val.txt", "\r\n\n", "holds no prompts"),
        ("geneval", "g.jsonl", "", "holds no prompts"),
    ],
)
def test_another_file_is_named_with_what_the_set_needs(read, write, name, file, content, expected):
    assert expected in refusal(read, name, path=write(file, content))


def test_files_that_are_not_there(read, tmp_path):
    assert "no prompt file" in refusal(read, "drawbench", path=tmp_path / "none.csv")
    assert "no prompt file" in refusal(read, "hpdv2", path=tmp_path / "anime.json")
    assert "is no file of this set" in refusal(read, "hpdv2", path="x" * 5_000)


def test_any_file_can_name_the_column_that_groups_the_statistics(read, write):
    path = write("own.csv", "caption,style,Category\na cup,photo,one\na cat,,two\n")
    found = read("file", "+prompts.category=Style", "+prompts.keep=[category]", path=path)
    assert [prompt.tags for prompt in found] == [{"task": "photo", "category": "one"}, {"category": "two"}]
    assert "lacks kind: it needs kind" in refusal(read, "file", "+prompts.category=kind", path=path)
    assert "prompts.keep=" in refusal(read, "file", "+prompts.keep=category", path=path)
