"""JSON and JSON Lines, each under the other's name too."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from golden_noise.prompts import read_prompts
from golden_noise.prompts.row import whole_caption

LINE_ENDS = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg"  # for str.splitlines(); JSON Lines have one only


def found(path):
    return [(prompt.text, prompt.tags.get("task")) for prompt in read_prompts(path)]


def test_geneval_metadata(write):
    rows = [
        {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"},
        {"tag": "counting", "include": [{"class": "clock", "count": 2}], "exclude": [], "prompt": "two clocks"},
    ]
    path = write("evaluation_metadata.jsonl", "\n".join(map(json.dumps, rows)))
    assert found(path) == [("a photo of a bench", "single_object"), ("two clocks", "counting")]


def test_json_lines(write):
    rows = [
        {"caption": "one", "seed": 42, "original_score_list": [1.0]},
        {"prompt": " two ", "tag": "position"},
        {"text": "", "seed": 3},
        {"caption": None},
        {"caption": "three", "seed": None, "category": 0},
    ]
    path = write("a.jsonl", "\n".join(json.dumps(row) for row in rows) + "\r\n\n")
    assert found(path) == [("one", None), ("two", "position"), ("three", "0")]
    assert read_prompts(path)[0].seed == 42


def test_python_literals(write):
    line = "{'index': 0, 'seed': 42, 'caption': \"a dog's bowl\", 'original_score_list': [0.21, None], 'ok': True}"
    assert found(write("a.jsonl", line)) == [("a dog's bowl", None)]
    assert found(write("b.json", f"{line}\n{line}")) == [("a dog's bowl", None)] * 2


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.ndjson"])
@pytest.mark.parametrize("ascii", [True, False])
def test_only_a_line_feed_ends_a_line(write, name, ascii):
    rows = [{"caption": LINE_ENDS}, {"caption": "b"}]
    text = "\n".join(json.dumps(row, ensure_ascii=ascii) for row in rows)
    assert found(write(name, text)) == [(LINE_ENDS, None), ("b", None)]
    assert found(write(name, text.replace("\n", "\r\n"))) == [(LINE_ENDS, None), ("b", None)]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (["one", "two"], [("one", None), ("two", None)]),
        ([{"Prompt": "one", "tag": "x"}, {"prompt": "two"}, "three"], [("one", "x"), ("two", None), ("three", None)]),
        ({"prompts": ["one", "two"], "name": "mine"}, [("one", None), ("two", None)]),
        ({"p1": {"prompt": "one", "category": "x"}, "p2": {"prompt": "two"}}, [("one", "x"), ("two", None)]),
        ({"p1": "one", "p2": "two"}, [("one", None), ("two", None)]),
        ({"prompt": "one", "category": "x"}, [("one", "x")]),
    ],
)
def test_documents(write, refusal, name, indent, document, expected):
    content = json.dumps(document, indent=indent)
    if name == "a.jsonl" and indent is None and isinstance(document, dict) and "prompt" not in document:
        assert "line 1: " in refusal(name, content)  # a line, and not a document
    else:
        assert found(write(name, content)) == expected


def test_dictionaries_of_the_issue(write):
    assert found(write("a.json", '{"p1": "a red circle"}')) == [("a red circle", None)]
    assert found(write("b.json", '{"p1": {"prompt": "a", "category": "x"}}')) == [("a", "x")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('["one", 2]', "entry 2: no caption"),
        ('[["one"]]', "entry 1: no caption"),
        ('{"p1": "one", "p2": {"prompt": "two"}}', "one JSON object without a caption (keys: 'p1', 'p2')"),
        ('{"p1": "one", "p2": 2}', "without a caption"),
        ('{"p1": {"prompt": 2}}', "entry 'p1': the caption '2' is not text"),
        ('{"p1": {"words": "x"}}', "entry 'p1': no caption"),
        ('{"caption": {"0": "one"}, "category": {"0": "x"}}', "without a caption"),
        ('{"prompts": ["one"], "seed": 3}', "without a caption"),
        ('{"caption": ["one"], "category": ["x"]}', "without a caption"),
        ('{"img.png": ["one", "two"]}', "without a caption"),
        ('{"p1": "one", "p1": "two"}', "the key 'p1' occurs twice"),
        ('[{"caption": "one", "caption": "two"}]', "the key 'caption' occurs twice"),
        ('[{"caption": "one", "Caption": "two"}]', "entry 1: the key 'caption' occurs twice"),
        ('{"caption": "a"}\n{"caption": "b", "caption": "c"}', "line 2: the key 'caption' occurs twice"),
        ("{'caption': 'b', 'caption': 'c'}", "line 1: the key \"'caption'\" occurs twice"),
        ('[\n"one",\n"two"', "not JSON (line 3, column 6"),
        ('"one"', "not JSON (one str"),
        ("[" * 9999, "not JSON"),
        ("{}", "holds no prompts"),
        ("[]", "holds no prompts"),
        ('[{"caption": 5}]', "entry 1: the caption '5' is not text"),
        ('{"caption": "a \\ud800"}', "the caption 'a \\ud800' holds half"),
        ('{"caption": "a \\u0000"}', "holds a NUL"),
    ],
)
def test_what_is_no_list_of_prompts(refusal, content, words):
    assert words in refusal("a.json", content)


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        ('{"caption": "my set", "prompts": ["a cat", "a dog"]}', ("caption", "prompts")),
        ('{"prompt": "default", "prompts": ["a cat"], "seed": 3}', ("prompt", "prompts")),
        ('{"text": "describes the set", "data": [{"prompt": "a cat"}, {"prompt": "a dog"}]}', ("text", "data")),
        ('{"text": "describes the set", "rows": [{"prompt": "a cat"}]}', ("text", "rows")),
        ('{"text": "describes the set", "set": ["a cat", "a dog"]}', ("text", "set")),
        ('{"text": "a sign", "counting": "two cats", "colors": "red car"}', ("text", "counting")),
        ('{"caption": "a sign", "b": "two cats"}', ("caption", "b")),
        ('{"counting": "two cats", "Text": "a sign", "colors": null}', ("text", "counting")),
        ("{'caption': 'a sign', 'b': 'two cats'}", ("caption", "b")),
        ('{"text": "the set", "p1": {"prompt": "a cat"}}', ("text", "p1")),
        ('{"text": "the set", "prompts": {"p1": "a cat"}}', ("text", "prompts")),
        ('[{"caption": "x", "prompts": ["a", "b"]}]', ("caption", "prompts")),
        ('{"p1": {"prompt": "a", "captions": ["b", "c"]}}', ("prompt", "captions")),
    ],
)
def test_one_prompt_or_many(refusal, content, keys):
    message = refusal("a.json", content)
    assert all(repr(key) in message for key in keys)


def test_one_prompt_or_many_in_a_line(refusal):
    assert "a.jsonl, line 1: 'caption' may be" in refusal("a.jsonl", '{"caption": "x", "prompts": ["a", "b"]}')
    lines = '{"caption": "x"}\n{"caption": "y", "data": [{"text": "a"}]}'
    assert "a.jsonl, line 2: 'caption' may be" in refusal("a.jsonl", lines)


@pytest.mark.parametrize("form", ["lines", "list", "ids"])
def test_objects_with_a_caption_may_hold_anything_else(write, form):
    rows = [
        {"prompt": "one", "include": [{"class": "bench", "count": 1}], "exclude": [], "tag": "x"},
        {"caption": "two", "prompt": "other", "scores": [0.1, 0.2], "url": "https://x.org", "width": 5, "prompts": []},
        {"text": "three", "negative": "blurry", "tags": ["x", "y"], "data": {"sampler": "euler"}, "items": ["x", "y"]},
    ]
    lines = "\n".join(map(json.dumps, rows))
    content = {"lines": lines, "list": json.dumps(rows), "ids": json.dumps(dict(zip("abc", rows, strict=True)))}
    assert [text for text, _ in found(write("a.json", content[form]))] == ["one", "two", "three"]


def test_one_object_may_have_what_describes_it(write):
    document = {"prompt": "one", "tag": "x", "include": [{"class": "bench"}], "seed": 3, "image": None}
    assert found(write("a.json", json.dumps(document))) == [("one", "x")]
    assert found(write("a.json", '{"prompt": "one", "category": "x", "file_name": "a.png"}')) == [("one", "x")]


@pytest.mark.parametrize(
    "document",
    [
        {
            "info": {"description": "COCO"},
            "licenses": [{"id": 1, "name": "x"}],
            "images": [{"id": 1, "file_name": "a.jpg"}],
            "annotations": [{"image_id": 1, "caption": "one"}, {"image_id": 1, "caption": "two"}],
        },
        {"items": [{"prompt": "one"}, {"prompt": "two"}]},
        {"my own": [{"prompt": "one"}, {"prompt": "two"}], "version": 2, "authors": ["x", "y"]},
        {"version": "1.0", "captions": ["one", "two"], "info": {"a": 1}},
    ],
)
def test_dictionaries_with_one_list_of_prompts(write, document):
    assert found(write("a.json", json.dumps(document))) == [("one", None), ("two", None)]


@pytest.mark.parametrize(
    "document",
    [
        {"train": [{"prompt": "one"}], "test": [{"prompt": "two"}]},
        {"prompts": ["one"], "captions": ["two"]},
        {"prompts": ["one"], "seeds": [3]},  # lists side by side
        {"items": [{"prompt": "one"}], "category": "x"},
        {"items": [{"prompt": "one"}], "more": {"p1": {"prompt": "two"}}},
        {"annotations": [{"bbox": [1, 2]}]},
    ],
)
def test_dictionaries_with_several_lists(refusal, document):
    assert "one JSON object without a caption" in refusal("a.json", json.dumps(document))


@pytest.mark.parametrize(
    "line",
    ['{"caption": null, "prompt": "real"}', '{"caption": "", "text": "real"}', '{"caption": NaN, "text": "x"}'],
)
def test_one_of_two_captions_is_empty(refusal, line):
    assert "a.jsonl, line 2: 'caption' is empty, but" in refusal("a.jsonl", f'{{"caption": "x"}}\n{line}')
    assert "a.json, entry 1: 'caption' is empty, but" in refusal("a.json", f"[{line}]")


def test_two_captions(write):
    assert found(write("a.jsonl", '{"prompt": "long", "caption": "short"}')) == [("short", None)]
    assert found(write("a.jsonl", '{"caption": "short", "prompt": null}\n{"caption": "", "text": "\u200b"}'))[1:] == []


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
def test_bad_json_line_is_named_and_never_run(refusal, line):
    assert "a.jsonl, line 3" in refusal("a.jsonl", '{"caption": "x"}\n\n' + line)


def test_what_pandas_writes_for_what_is_missing(write):
    lines = ['{"caption": "one", "seed": NaN, "category": NaN}', '{"caption": NaN}', '{"caption": "two", "seed": 42.0}']
    prompts = read_prompts(write("a.jsonl", "\n".join(lines)))
    assert [(prompt.text, prompt.tags) for prompt in prompts] == [("one", {}), ("two", {})]
    assert prompts[1].seed == 42
    assert read_prompts(write("b.json", f"[{','.join(lines)}]")) == prompts


@pytest.mark.parametrize("seed", ['"many"', "1.5", "42.5", "true", "Infinity", "-Infinity", "[1]", "1e30", '"1_0"'])
def test_seeds_that_are_no_whole_numbers(refusal, seed):
    message = refusal("a.jsonl", f'{{"caption": "x", "seed": 1}}\n{{"caption": "y", "seed": {seed}}}')
    assert "a.jsonl, line 2: seed" in message


@pytest.mark.parametrize(("seed", "expected"), [("42.0", 42), ('"42.0"', 42), ('" 7 "', 7), ("-3", -3), ("1e3", 1000)])
def test_seeds_that_are(write, seed, expected):
    assert read_prompts(write("a.jsonl", f'{{"caption": "x", "seed": {seed}}}'))[0].seed == expected


@pytest.mark.parametrize(("largest", "beyond"), [(2**62 - 1, 2**62), (2.0**53 - 1, 2.0**53)])
def test_the_largest_seeds(write, refusal, largest, beyond):
    """Of floats those that no other whole number is rounded to."""
    assert read_prompts(write("a.jsonl", f'{{"caption": "x", "seed": {largest}}}'))[0].seed == largest
    assert "line 1: seed" in refusal("b.jsonl", f'{{"caption": "x", "seed": {beyond}}}')


def test_seeds_beyond_64_bits(refusal):
    content = '{"caption": "a", "seed": 99999999999999999999}'
    assert "line 1: seed 99999999999999999999 is too large" in refusal("a.jsonl", content)


def test_names_of_images_are_kept(write):
    path = write("metadata.csv", "file_name,text\na/0007.png,a red car\n")
    assert read_prompts(path)[0].tags == {"file": "a/0007.png"}
    assert read_prompts(write("a.jsonl", '{"image": {"bytes": 1}, "caption": "x"}'))[0].tags == {}


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1),
    st.sampled_from(["lines", "list", "objects", "ids"]),
    st.booleans(),
    st.sampled_from([None, 1]),
    st.sampled_from(["json", "jsonl"]),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_form_reads_back(write, captions, form, ascii, indent, ending):
    captions = [caption for caption in map(whole_caption, captions) if caption] or ["one"]
    rows = [{"caption": caption} for caption in captions]
    if form == "lines":
        text = "\n".join(json.dumps(row, ensure_ascii=ascii) for row in rows)
    else:
        forms = {"list": captions, "objects": rows, "ids": {f"p{i}": caption for i, caption in enumerate(captions)}}
        text = json.dumps(forms[form], ensure_ascii=ascii, indent=1 if form == "ids" else indent)
    assert [prompt.text for prompt in read_prompts(write(f"a.{ending}", text))] == captions
