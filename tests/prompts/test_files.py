"""What all prompt files have in common."""

import gzip

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from golden_noise.errors import UserError
from golden_noise.prompts import read_prompts
from golden_noise.prompts.row import whole_caption


def complaint(path, **options):
    with pytest.raises(UserError) as error:
        read_prompts(path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_plain_text(texts):
    assert texts("a.txt", "\n  a red car \n\ncaption, seed\r\n") == ["a red car", "caption, seed"]
    assert texts("prompts", '# one\n"two" {"caption": 3}\n') == ["# one", '"two" {"caption": 3}']
    assert texts("b.txt", "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\nh") == ["a\u2028b\u2029c\x85d\x0be\x0cf\x1cg", "h"]


def test_old_line_ends_are_refused(refusal):
    assert "a.txt, line 2: a carriage return" in refusal("a.txt", "one\ntwo\rthree")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\n\r")), min_size=1))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_plain_text_reads_back(texts, captions):
    captions = [caption for caption in map(whole_caption, captions) if caption]
    captions = ["one", *captions]  # the first line could be that of a web page
    assert texts("a.txt", "\n".join(captions)) == captions


@given(st.binary(max_size=200), st.sampled_from(["csv", "tsv", "json", "jsonl", "txt", "parquet"]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_file_is_read_or_refused_in_one_line(write, content, ending):
    path = write(f"a.{ending}", b"caption,seed\n" + content if ending == "csv" else content)
    try:
        assert all(prompt.text.strip() for prompt in read_prompts(path))
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("name, content", [("a.txt", "\n \n"), ("a.jsonl", ""), ("a.csv", "caption\n\n")])
def test_files_without_prompts(refusal, name, content):
    assert f"{name} holds no prompts" in refusal(name, content)


@pytest.mark.parametrize("path", ["none.csv", "", "x" * 5000, "a\0b", "~nobody-of-that-name/x"])
def test_missing_files(tmp_path, path):
    assert "prompts.path" in complaint(f"{tmp_path}/{path}" if path and path[0] != "~" else path)


def test_a_folder_is_no_file(tmp_path):
    assert "no prompt file" in complaint(str(tmp_path))


@pytest.mark.parametrize("path", [123, 1.5, None, True, ["a.txt"], " "])
def test_paths_that_are_no_text(path):
    assert f"prompts.path={path} must be a file" in complaint(path)


def test_the_home_folder(write, monkeypatch, tmp_path):
    write("a.txt", "one")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_prompts("~/a.txt")[0].text == "one"


def test_encodings(texts, refusal):
    assert "a.txt is not UTF-8 text (invalid continuation byte at byte 8, line 2)" in refusal(
        "a.txt", "one\nein Ärger".encode("latin-1")
    )
    assert texts("b.csv", "caption\nein Hügel\n".encode("utf-16")) == ["ein Hügel"]
    assert "c.csv, line 1: a NUL character" in refusal("c.csv", "caption\na cat\n".encode("utf-16-le"))
    assert "d.txt, line 2: a NUL character" in refusal("d.txt", "one\ntwo\0\n")


def test_packed_and_unknown_files_are_refused(refusal):
    assert "a.csv.gz is packed (gzip): unpack it" in refusal("a.csv.gz", gzip.compress(b"caption\na\n"))
    assert "b.csv is packed (gzip)" in refusal("b.csv", gzip.compress(b"caption\na\n"))
    assert "c.xlsx is packed (zip, as Excel's .xlsx is)" in refusal("c.xlsx", b"PK\x03\x04...")
    assert "d.yaml has an unknown ending" in refusal("d.yaml", "- one\n- two\n")


def test_limit_counts_prompts_of_the_file(write):
    path = write("a.txt", "one\ntwo\nthree\n")
    assert [p.text for p in read_prompts(path, limit=2, repeats=2)] == ["one", "one", "two", "two"]
    assert len(read_prompts(path, limit=9)) == 3


@pytest.mark.parametrize(
    "options", [{"repeats": 0}, {"limit": 0}, {"limit": -1}, {"repeats": "x"}, {"repeats": True}, {"limit": 1.5}]
)
def test_senseless_numbers(write, options):
    assert f"prompts.{next(iter(options))}" in complaint(write("a.txt", "one"), **options)


def test_an_unknown_use(write):
    assert "prompts.use=x must be one of learning, evaluation" in complaint(write("a.txt", "one"), use="x")


@pytest.mark.parametrize("name", ["a.txt", "a", "a.csv", "a.tsv", "a.json", "a.jsonl"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n", "a pointer of Git LFS"),
        ("<!DOCTYPE html>\n<html><body>404</body></html>", "a web page"),
        ("\ufeff\n<HTML lang=en>\n", "a web page"),
        ("{\\rtf1\\ansi a cat}", "rich text"),
        ('<?xml version="1.0"?>\n<prompt>a</prompt>', "XML"),
    ],
)
def test_files_that_hold_no_prompts_whatever_their_name(refusal, name, content, words):
    assert f"{name} is {words}" in refusal(name, content)


@pytest.mark.parametrize("empty", ["\u200b", "\ufeff", "\u200b \u2060\u200d", "\u00ad", "\u3164", " \ufeff\u3000"])
def test_captions_of_which_nothing_can_be_seen_are_empty(texts, empty):
    assert texts("a.txt", f"one\n{empty}\ntwo\n") == ["one", "two"]
    assert texts("a.csv", f"id,prompt\n1,one\n2,{empty}\n{empty}\n3,two\n") == ["one", "two"]
    assert texts("a.json", f'["one", "{empty}", "two"]') == ["one", "two"]


def test_byte_order_marks_of_joined_files_are_no_text(texts):
    assert texts("a.txt", "\ufeffone\n\ufefftwo\n \ufeff three\n") == ["one", "two", "three"]
    assert texts("a.jsonl", '\ufeff{"caption": "one"}\n\ufeff{"caption": "\ufefftwo"}\n') == ["one", "two"]
    assert texts("b.txt", "a\u200bb \u200d") == ["a\u200bb \u200d"]  # within a caption they are text
