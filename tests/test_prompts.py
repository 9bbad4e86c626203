import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from golden_noise.errors import UserError
from golden_noise.prompts import Prompt, read_prompts


@pytest.fixture
def write(tmp_path):
    def write_file(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write_file


def refusal(path: str, **options) -> str:
    with pytest.raises(UserError) as error:
        read_prompts(path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_csv_of_drawbench(write):
    path = write("draw.csv", 'Prompts,Category\nA red car.,Colors\n"A cat, and a dog",Counting\n\n')
    assert read_prompts(path, seed=5) == [
        Prompt(0, "A red car.", 5, {"task": "Colors"}),
        Prompt(1, "A cat, and a dog", 6, {"task": "Counting"}),
    ]


def test_csv_of_pick_a_pic_with_byte_order_mark(write):
    path = write("pick.csv", "\ufeffcaption,caption_zh,备注\r\na boat,船,\r\nein Hügel,丘,x\r\n")
    assert [prompt.text for prompt in read_prompts(path)] == ["a boat", "ein Hügel"]
    assert all(prompt.tags == {} for prompt in read_prompts(path))


def test_byte_order_mark_does_not_hide_the_caption_column(write):
    assert read_prompts(write("a.CSV", "\ufeffCaption\na boat\n"))[0].text == "a boat"


def test_csv_with_seeds_and_empty_captions(write):
    path = write("a.csv", "id,Text,Seed\n1,one,42\n2,,7\n3,two,\n")
    assert [(p.index, p.text, p.seed) for p in read_prompts(path, seed=10)] == [
        (0, "one", 42),
        (1, "two", 11),
    ]


def test_quoted_caption_may_span_lines(write):
    assert read_prompts(write("a.csv", 'caption\n"one\ntwo"\n'))[0].text == "one\ntwo"


def test_unquoted_commas_stay_in_the_caption(write):
    path = write("hpd.csv", "序号,caption,caption_zh,备注\n1,a cat,猫,\n2,a cat, sitting, asleep,猫，坐着,x\n")
    assert [prompt.text for prompt in read_prompts(path)] == ["a cat", "a cat, sitting, asleep"]
    path = write("draw.csv", "Prompts,Category\nOne car, red,Colors\n")
    assert read_prompts(path)[0] == Prompt(0, "One car, red", 0, {"task": "Colors"})


def test_a_comma_that_may_be_the_translations_is_an_error_and_not_half_a_caption(write):
    message = refusal(write("hpd.csv", "caption,caption_zh\na dog,狗\na cat,猫,坐着\n"))
    assert "hpd.csv, line 3" in message
    assert "quote" in message


def test_csv_with_blank_lines_everywhere(write):
    path = write("a.csv", "\ufeff\r\n , \r\nPrompts,Category\r\n\r\none,x\r\n,\r\ntwo,\r\n\r\n")
    assert [(p.text, p.tags) for p in read_prompts(path)] == [("one", {"task": "x"}), ("two", {})]


def test_short_lines_lack_the_last_columns_only(write):
    assert read_prompts(write("a.csv", "caption,category\none\n"))[0].tags == {}
    assert [p.text for p in read_prompts(write("b.csv", "category,caption\nx\ny,two\n"))] == ["two"]


def test_tab_separated_prompts_may_hold_commas(write):
    path = write("parti.tsv", "Prompt\tCategory\tChallenge\na cat, a dog\tAnimals\tBasic\n")
    assert read_prompts(path)[0] == Prompt(0, "a cat, a dog", 0, {"task": "Animals"})


def test_chinese_captions(write):
    assert read_prompts(write("a.csv", "caption\n一只猫，坐着\n"))[0].text == "一只猫，坐着"
    assert read_prompts(write("b.csv", "caption,seed\n一只猫,坐着,3\n"))[0] == Prompt(0, "一只猫,坐着", 3)
    assert read_prompts(write("a.jsonl", "{'caption': '一只猫'}"))[0].text == "一只猫"


def test_geneval_metadata(write):
    rows = [
        {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"},
        {"tag": "counting", "include": [{"class": "clock", "count": 2}], "exclude": [], "prompt": "two clocks"},
    ]
    path = write("evaluation_metadata.jsonl", "\n".join(map(json.dumps, rows)))
    assert [(p.text, p.tags["task"]) for p in read_prompts(path)] == [
        ("a photo of a bench", "single_object"),
        ("two clocks", "counting"),
    ]


def test_python_literals_in_json_lines(write):
    line = "{'index': 0, 'seed': 42, 'caption': \"a dog's bowl\", 'original_score_list': [0.21, None], 'ok': True}"
    assert read_prompts(write("a.jsonl", line))[0] == Prompt(0, "a dog's bowl", 42)


def test_json_with_a_list(write):
    assert [p.text for p in read_prompts(write("hpd.json", '[\n "one",\n "two"\n]'))] == ["one", "two"]
    path = write("a.json", json.dumps([{"Prompt": "one", "tag": "x"}, {"prompt": "two", "seed": 9}]))
    assert read_prompts(path) == [Prompt(0, "one", 0, {"task": "x"}), Prompt(1, "two", 9)]
    assert read_prompts(write("b.json", '{"caption": "x"}\n{"caption": "y"}'))[1].text == "y"
    assert "c.json, entry 2" in refusal(write("c.json", '["one", 2]'))


def test_names_of_images_are_kept(write):
    path = write("metadata.csv", "file_name,text\na/0007.png,a red car\n")
    assert read_prompts(path)[0].tags == {"file": "a/0007.png"}
    assert read_prompts(write("a.jsonl", '{"image": {"bytes": 1}, "caption": "x"}'))[0].tags == {}


def test_captions_that_are_no_text(write):
    assert "a.jsonl, line 1: the caption" in refusal(write("a.jsonl", '{"caption": ["a", "b"]}'))
    assert "line 1: the caption 'a \\ud800' holds half" in refusal(write("a.jsonl", '{"caption": "a \\ud800"}'))


@given(st.binary(max_size=200), st.sampled_from(["csv", "tsv", "json", "jsonl", "txt"]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_file_is_read_or_refused_in_one_line(write, content, ending):
    path = write(f"a.{ending}", b"caption,seed\n" + content if ending == "csv" else content)
    try:
        assert all(prompt.text.strip() for prompt in read_prompts(path))
    except UserError as error:
        assert "\n" not in str(error)


def test_csv_without_caption_column_lists_its_columns(write):
    message = refusal(write("a.csv", "id,words\n1,hello\n"))
    assert "a.csv" in message
    assert "id, words" in message
    assert "caption" in message


def test_open_quotation_mark_in_a_long_csv(write):
    message = refusal(write("a.csv", 'caption\n"never closed\n' + "a line of text\n" * 10_000))
    assert "a.csv" in message


def test_json_lines(write):
    rows = [
        {"caption": "one", "seed": 42, "original_score_list": [1.0]},
        {"prompt": " two ", "tag": "position"},
        {"text": "", "seed": 3},
        {"caption": "three", "seed": None},
    ]
    path = write("a.jsonl", "\n".join(json.dumps(row) for row in rows) + "\n\n")
    assert read_prompts(path, seed=100) == [
        Prompt(0, "one", 42),
        Prompt(1, "two", 101, {"task": "position"}),
        Prompt(2, "three", 102),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "[1, 2]",
        '"text"',
        "{",
        '{"words": "x"}',
        "__import__('os').abort()",
        "{'caption': open('x').read()}",
        "[" * 9999,
        "9" * 9999,
    ],
)
def test_bad_json_line_is_named_and_never_run(write, line):
    assert "a.jsonl, line 3" in refusal(write("a.jsonl", '{"caption": "x"}\n\n' + line))


@pytest.mark.parametrize("seed", ['"many"', "1.5", "true", "Infinity", "[1]"])
def test_seeds_that_are_no_whole_numbers(write, seed):
    message = refusal(write("a.jsonl", f'{{"caption": "x", "seed": 1}}\n{{"caption": "y", "seed": {seed}}}'))
    assert "a.jsonl, line 2: seed" in message


def test_seeds_beyond_64_bits(write):
    assert "line 1: seed 99999999999999999999 is too large" in refusal(
        write("a.jsonl", '{"caption": "a", "seed": 99999999999999999999}')
    )


def test_bad_seed_in_csv(write):
    assert "a.csv, line 3: seed '1e3'" in refusal(write("a.csv", "caption,seed\nx,1\ny,1e3\n"))


def test_plain_text(write):
    path = write("a.txt", "\n  a red car \n\ncaption, seed\r\n")
    assert read_prompts(path) == [Prompt(0, "a red car", 0), Prompt(1, "caption, seed", 1)]


def test_repeats_draw_new_noises(write):
    own = read_prompts(write("a.jsonl", '{"caption": "x", "seed": 50}\n{"caption": "y"}'), seed=7, repeats=3)
    assert [(p.index, p.text, p.seed) for p in own] == [
        *[(0, "x", 50), (1, "x", 51), (2, "x", 52)],
        *[(3, "y", 10), (4, "y", 11), (5, "y", 12)],
    ]


def test_limit_counts_prompts_of_the_file(write):
    path = write("a.txt", "one\ntwo\nthree\n")
    assert [p.text for p in read_prompts(path, limit=2, repeats=2)] == ["one", "one", "two", "two"]
    assert len(read_prompts(path, limit=9)) == 3


@pytest.mark.parametrize("options", [{"repeats": 0}, {"limit": 0}, {"limit": -1}])
def test_senseless_numbers(write, options):
    assert f"prompts.{next(iter(options))}" in refusal(write("a.txt", "one"), **options)


@pytest.mark.parametrize("name, content", [("a.txt", "\n \n"), ("a.jsonl", ""), ("a.csv", "caption\n\n")])
def test_files_without_prompts(write, name, content):
    assert name in refusal(write(name, content))


def test_missing_file_and_folder(tmp_path):
    assert "prompts.path" in refusal(str(tmp_path / "none.csv"))
    assert "prompts.path" in refusal(str(tmp_path))


def test_other_encodings_are_refused(write):
    assert "a.txt is no UTF-8" in refusal(write("a.txt", "ein Hügel".encode("latin-1")))


@pytest.mark.parametrize("name", ["caption", "Category", "seed"])
def test_a_column_that_is_there_twice_is_named(write, name):
    path = write("a.csv", f"caption,{name},{name.upper()} \na,b,c\n")
    assert f"has two columns '{name.lower()}'" in refusal(path)


def test_other_columns_may_be_there_twice(write):
    assert [prompt.text for prompt in read_prompts(write("a.csv", "caption,x,x\na,1,2\n"))] == ["a"]
