"""CSV and TSV as they are found: what is certain is read whole, anything else is refused with its line."""

import csv
import io
import re

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from golden_noise.errors import UserError
from golden_noise.prompts import read_prompts

HPD_HEADER = "序号,caption,caption_zh,备注\n"
HPD = {
    "a red circle",
    "a red circle, next to a blue square",
    'a poster titled "Queen," made by two squares',
    "a green cross",
    'a drawing titled "Rise" of triangles',
    "a yellow square",
}


def tags(path):
    return [(prompt.text, prompt.tags.get("task")) for prompt in read_prompts(path)]


def test_the_papers_own_file(texts):
    """Rows of two cells under a header of four, unquoted commas, stray marks."""
    rows = [f"{number},{caption}\n" for number, caption in enumerate(sorted(HPD))]
    assert {*texts("hpd.csv", "\ufeff" + HPD_HEADER + "".join(rows))} == HPD
    assert texts("one.csv", HPD_HEADER + "0,one,two,three\n") == ["one,two,three"]


def test_drawbench(write):
    path = write("draw.csv", 'Prompts,Category\nA red car.,Colors\n"A cat, and a dog",Counting\n\n')
    assert tags(path) == [("A red car.", "Colors"), ("A cat, and a dog", "Counting")]


def test_pick_a_pic_with_byte_order_mark(write):
    path = write("pick.csv", "\ufeffcaption,caption_zh,备注\r\na boat,船,\r\nein Hügel,丘,x\r\n")
    assert tags(path) == [("a boat", None), ("ein Hügel", None)]


def test_caption_columns_in_any_case_and_after_a_byte_order_mark(texts):
    assert texts("a.CSV", "\ufeffCaption\na boat\n") == texts("b.csv", "ID, PROMPT \n1,a boat\n") == ["a boat"]
    assert texts("c.csv", '"id","text"\n"1","a boat"\n') == ["a boat"]


def test_quoted_cells(texts):
    assert texts("a.csv", 'caption\n"one\ntwo"\n') == ["one\ntwo"]
    content = 'id,caption,x\n1,"a ""big"", red cat",\n2,"b\r\n\r\nc",\n'
    assert texts("b.csv", content) == ['a "big", red cat', "b\r\n\r\nc"]
    assert texts("c.csv", 'caption,x\n"one\ntwo",3\nfour,5\n') == ["one\ntwo", "four"]
    assert texts("large.csv", f'caption,x\n"{"a, " * 100_000}b",1\n')[0].endswith("a, b")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("Prompts,Category\nOne car, red,Colors\n", "One car, red"),
        ("序号,caption,caption_zh,备注\n1,a cat,猫,\n2,a cat, sitting, asleep,猫，坐着,x\n", "a cat, sitting, asleep"),
        ("caption,seed\n一只猫,坐着,3\n", "一只猫,坐着"),
        ("caption\nred,blue\n", "red,blue"),
        ("id,caption\n1,a\n2,red,blue\n", "red,blue"),
        ("image,caption\n1.jpg,A cat .\n1.jpg,A dog,running .\n", "A dog,running ."),
        ("prompt,category\na,\nred,blue,\n", "red,blue"),
        ("id,prompt,challenge,note\n1,a cat,x,\n2,a dog, big,y,\n", "a dog, big"),
        ("prompt,category\na,x\nred,blue,x\n", "red,blue"),
        ("id,prompt,note,x\n1,a cat\n2,a dog, asleep\n", "a dog, asleep"),
        ('prompt,category\na,x\na poster titled "Queen," by squares,x\n', 'a poster titled "Queen," by squares'),
        ('id,prompt\n1,"Rise" of triangles\n2,a pipe of 6", blue\n', 'a pipe of 6", blue'),
        ("prompt;category\na cat, a dog;x\n", "a cat, a dog"),
        ("prompt\tcategory\na cat, a dog\tx\n", "a cat, a dog"),
    ],
)
def test_unquoted_commas_and_marks_that_can_only_be_the_captions(texts, content, expected):
    assert texts("a.csv", content)[-1] == expected


def test_empty_surplus_cells_are_no_cells(write):
    assert tags(write("a.csv", "prompt,category\na red circle,colors,\n")) == [("a red circle", "colors")]
    assert tags(write("b.csv", "prompt,category,\na cat,colors,\nb,,\n")) == [("a cat", "colors"), ("b", None)]
    assert tags(write("c.csv", "category,prompt\nx,one,,\ny,two,,\n")) == [("one", "x"), ("two", "y")]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("caption,caption_zh\na dog,狗\na cat,猫,坐着\n", 3),  # may be the translation's comma
        ("caption,caption_zh\na dog,狗\na cat, asleep\n", 3),  # no translation
        ("id,prompt,note\n1,a,n\n2,red,blue,n\n", 3),  # or the note's comma
        ("id,prompt,translation,note\n1,a\n2,red,blue\n", 3),  # or a translation
        ("prompt,category\na cat\nred,blue\n", 3),  # or a category
        ("prompt,category\na,x\nb, c,x\nd, e\n", 4),
        ("prompt,category\na,x\nred,blue,y\n", 3),  # an unknown category
        ('prompt,category\na poster titled "Queen," by squares\n', 2),
        ('prompt,category\n"a cat, a dog",x\none, two,x\n', 3),  # does it quote or not?
        ("id,prompt,category\n1,a cat\n2,red,blue\n", 3),
        ("prompt,category\na,x\nb, c,\n", 3),
        ('id,prompt\n1,a, b\n2,"Rise", c\n', 3),
        (HPD_HEADER + '0,one\n1,a, b\n2,"Rise"\n', 4),
        (HPD_HEADER + "0,one\n1,two\n2,three,,four\n3,five,six\n", 4),
        (HPD_HEADER + "0,one\n1,a sign, 猫\n", 3),
        ("prompt,category\na\rb,c\n", 2),
    ],
)
def test_commas_of_uncertain_columns(refusal, content, line):
    assert f"a.csv, line {line}: " in refusal("a.csv", content)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('caption\n"never closed\n' + "a line of text\n" * 10_000, 2),
        ('id,caption\n0,one\n1,"never closed\n2,two\n3,three\n', 3),
        ('caption,x\na,1\n"b,2\nc,3\na tube of 6",4\nd,5\n', 3),  # meets another stray mark
        ('id,caption\n0,one\n1,"two\n2,foo, bar\n3,baz\n4,6"\n5,x\n', 3),
        ('caption\none\n"two\nthree\na tube of 6"\nfour\n', 3),
        ('id,caption\n0,"one\n1,two"three\n', 2),  # closes within a cell
        ('id,caption\n0,"a "big" cat"\n', 2),  # marks that should be doubled?
        ('id,caption,x,y\n0,"a "big, fat" cat",z\n', 2),
        ('id,caption\n0, "a cat"\n', 2),
    ],
)
def test_marks_that_may_quote_or_be_text(refusal, content, line):
    assert f"a.csv, line {line}: " in (message := refusal("a.csv", content))
    assert "quot" in message


def test_blank_lines_everywhere(write):
    path = write("a.csv", "\ufeff\r\n , \r\nPrompts,Category\r\n\r\none,x\r\n,\r\ntwo,\r\n\r\n")
    assert tags(path) == [("one", "x"), ("two", None)]


def test_short_rows_lack_the_last_columns_only(write, texts):
    assert tags(write("a.csv", "caption,category\none\n")) == [("one", None)]
    assert texts("b.csv", "category,caption\nx,\ny,two\n") == ["two"]
    assert tags(write("c.csv", 'caption,category\n"a, b",x\ntwo\n')) == [("a, b", "x"), ("two", None)]
    assert tags(write("d.tsv", "caption\tcategory\none\tx\ntwo\n")) == [("one", "x"), ("two", None)]


def test_tab_separated_values_are_not_quoted(write, texts):
    path = write("parti.tsv", "Prompt\tCategory\tChallenge\na cat, a dog\tAnimals\tBasic\n")
    assert tags(path) == [("a cat, a dog", "Animals")]
    path = write("stop.tsv", 'Prompt\tCategory\n"STOP" in red letters on a wall\tText\n"open\tx\nthe end"\ty\n')
    assert tags(path) == [('"STOP" in red letters on a wall', "Text"), ('"open', "x"), ('the end"', "y")]
    assert texts("quoted.tsv", 'id\tPrompt\n1\t"a ""big""\tcat"\n2\ta dog\n') == ['a "big"\tcat', "a dog"]
    assert texts("swallow.tsv", 'id\tPrompt\n1\t"one\n2\ttwo\n3\t6"\n') == ['"one', "two", '6"']


def test_tabs_of_uncertain_columns(refusal):
    assert "a.tsv, line 3: 3 cells for 2 columns" in refusal("a.tsv", "prompt\tcategory\na\tx\nb\tc\tx\n")


def test_a_file_without_caption_column_lists_its_columns(refusal):
    message = refusal("a.csv", "id,words\n1,hello\n")
    assert "a.csv has no caption column: it needs one of caption" in message and "id, words" in message
    assert "columns: a cat" in refusal("b.csv", "a cat\na dog\n")


@pytest.mark.parametrize("name", ["caption", "Category", "seed"])
def test_a_column_that_is_there_twice_is_named(refusal, name):
    assert f"has two columns '{name.lower()}'" in refusal("a.csv", f"caption,{name},{name.upper()} \na,b,c\n")


def test_other_columns_may_be_there_twice(texts):
    assert texts("a.csv", "caption,x,x\na,1,2\n") == ["a"]


def test_seeds_in_tables(write, refusal):
    path = write("a.csv", "id,Text,Seed\n1,one,42\n2,,7\n3,two,42.0\n4,three,nan\n")
    assert [(p.index, p.text, p.seed) for p in read_prompts(path)][:2] == [(0, "one", 42), (1, "two", 42)]
    assert "a.csv, line 3: seed '1e3'" in refusal("a.csv", "caption,seed\nx,1\ny,1e3\n")
    assert "a.csv, line 2: seed '42.5'" in refusal("a.csv", "caption,seed\nx,42.5\n")


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.csv", "id,prompt\n1,a cat\nsitting on a mat\n2,a dog", 3),  # a line end in a caption
        ("a.tsv", "id\tprompt\n1\ta cat\nsitting on a mat\n2\ta dog", 3),
        ("a.csv", "id;prompt\n1;a cat\nsitting on a mat\n2;a dog", 3),
        ("a.csv", 'id,prompt\n1,"a cat, big"\na lonely dog\n2,"a bird"', 3),
        ("a.tsv", "id\tprompt\n1\ta cat\n2 a dog\n3\ta bird", 3),
        ("a.csv", "id,prompt\n1;a cat\n2,a dog", 2),
        ("a.csv", "Category,Prompt\nAnimals,a cat\nand a dog", 3),
        ("a.csv", HPD_HEADER + "0,a cat\nasleep\n1,a dog", 3),
        ("a.csv", "id,prompt\n1,a cat\nsitting, on a mat\n2,a dog", 3),
        ("a.csv", "category,prompt\nAnimals,a cat\nsitting, on a mat\n", 3),
        ("a.csv", HPD_HEADER + "0,a cat\nasleep, on a mat\n1,a dog", 3),
        ("a.tsv", "prompt\tcategory\na cat\nsitting\tx\na dog\tx", 3),
        ("a.tsv", "id\tprompt\tcategory\np1\ta cat\nsitting\tx\np2\ta dog\tx", 3),
        ("a.csv", 'prompt,category\n"a, b",x\na cat\nsitting,x\n', 4),
    ],
)
def test_a_row_that_is_a_part_of_one_is_refused(refusal, name, content, line):
    assert f"{name}, line {line}: " in refusal(name, content)


def test_rows_with_an_empty_caption_are_passed_over(texts):
    assert texts("a.csv", "id,prompt,x\n1,,\n2,a dog,\n3,,y\n") == ["a dog"]
    assert texts("a.tsv", "id\tprompt\n1\t\n2\ta dog\n") == ["a dog"]
    assert texts("b.csv", "id,prompt\n1,a cat\n,a dog\n") == ["a cat", "a dog"]  # a number is missing


def test_names_among_numbers(texts):
    assert texts("a.csv", 'id,prompt\n1,a cat\n2,a dog\n3b,a bird\nx,"a, b"\n') == ["a cat", "a dog", "a bird", "a, b"]


def test_one_of_two_caption_columns_is_empty(refusal, texts):
    assert "a.csv, line 2: 'caption' is empty, but 'prompt' is not" in refusal("a.csv", "caption,prompt\n,real\n")
    assert "a.tsv, line 3: 'prompt' is empty, but 'text' is not" in refusal("a.tsv", "text\tprompt\na\tb\nc\t\n")
    assert texts("b.csv", "prompt,caption\na,one\n,two\n,\n") == ["one", "two"]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('prompt\n"line one\nline two"\na cat', 2),
        ('id\tprompt\n1\t"line one\nline two\tb"\n2\ta cat', 2),
        ('prompt\tcategory\n"a ""big"" cat"\tx\n5" pipe\ty', 2),
        ('prompt\tcategory\n5" pipe\ty\n"a ""big"" cat"\tx\n', 3),
        ('prompt\tcategory\n"a ""big"" cat"\tx\n"never closed\ty', 2),
        ('prompt\n"line one\nline two"\n5" pipe', 2),
        ('id\tprompt\tcategory\n1\t"a\tb"\n2\t5" pipe\tx\n', 2),
        ('id\tprompt\tcategory\n1\t"line one\nline two"\tx\n2\t5" pipe\ty\n', 2),
    ],
)
def test_marks_in_tab_separated_values_that_may_quote_or_be_text(refusal, content, line):
    assert f"a.tsv, line {line}: " in refusal("a.tsv", content)


def test_cells_of_several_lines_in_tab_separated_values(texts):
    assert texts("a.tsv", 'prompt\n"line one\nline two"\n"a cat"') == ["line one\nline two", "a cat"]
    content = 'id\tprompt\tcategory\n1\t"line one\nline\ttwo"\tx\n2\ta cat\ty\n'
    assert texts("b.tsv", content) == ["line one\nline\ttwo", "a cat"]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("prompt,category\na cat,animals\na dog, running", 3),
        ("prompt,category\na dog, running\na cat,animals", 2),
        ('prompt,category\n"a cat, big",animals\na dog, running', 3),
        ("id,prompt,category\n1,a cat, animals\n2,a dog, animals\n3,a tree", 2),
        ("id,prompt,category,x\n1,a cat, animals\n3,a tree", 2),
        ("id,prompt,note\n1,a dog, big, new\n3,a tree", 2),
        ("id,prompt\n1,1girl,\n2,a tree\n", 2),
        ("category,prompt\nx,one,,\ny,two, three,,\n", 2),
        ('id,prompt\n1,"a, b"\n2,1girl,', 3),
    ],
)
def test_commas_that_may_separate_or_be_text(refusal, content, line):
    assert f"a.csv, line {line}: " in refusal("a.csv", content)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("prompt\nmasterpiece, best quality, 1girl,", ["masterpiece, best quality, 1girl,"]),
        ("prompt\na cat,\na dog,,\nb\n", ["a cat,", "a dog,,", "b"]),
        ("prompt\r\na cat,\r\n", ["a cat,"]),
        ('prompt\n"a cat,",\n"b"\n', ["a cat,", "b"]),
        ("prompt,\na cat, asleep,\nb,\n", ["a cat, asleep", "b"]),
        ("id,prompt\n1,a\n2,1girl, solo,\n", ["a", "1girl, solo,"]),
        ("id,prompt\n1,a cat\n2, a dog\n", ["a cat", "a dog"]),
        ("prompt,category\na cat, x\na dog, y\n", ["a cat", "a dog"]),
    ],
)
def test_commas_at_the_ends_of_cells(texts, content, expected):
    assert texts("a.csv", content) == expected


def test_the_first_line_may_name_the_delimiter(texts, refusal, write):
    assert tags(write("a.csv", "sep=;\r\nprompt;category\r\na cat, big;x\r\n")) == [("a cat, big", "x")]
    assert texts("b.csv", '\ufeff"sep=\t"\nid\tprompt\n1\ta cat, big\n') == ["a cat, big"]
    assert texts("c.csv", "sep=,\nprompt,seed\na;b,1\n") == ["a;b"]
    assert texts("d.csv", "sep=|\nid|prompt\n1|a;b\n") == ["a;b"]
    assert "a.csv, line 4: " in refusal("a.csv", "sep=;\nid;prompt\n1;a cat\nasleep")


def test_joined_tables(texts):
    assert texts("a.csv", '\ufeffprompt,x\na,1\n\ufeff"b, c",2\n') == ["a", "b, c"]


CAPTIONS = st.lists(
    st.text(st.sampled_from([*'ab ,;"\n\t猫\u2028']), max_size=12).map(str.strip).filter(re.compile("[a猫]").search),
    min_size=1,
    max_size=6,
)
#: Neither like a quoted cell nor with commas at the end, which are empty cells.
PLAIN = CAPTIONS.map(
    lambda found: [re.sub(r'^"(.*)"$', r"\1", " ".join(caption.split()).rstrip(' ,"')) for caption in found]
)
PROPERTY = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def exact_or_refused(path, captions):
    try:
        assert [prompt.text for prompt in read_prompts(path)] == captions
    except UserError as error:
        assert ", line " in str(error) and "\n" not in str(error)


@PROPERTY
@given(CAPTIONS, st.sampled_from([",", ";"]), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_quoted_files_read_back(write, captions, delimiter, quoting):
    table = io.StringIO(newline="")
    rows = csv.writer(table, delimiter=delimiter, quoting=quoting)
    rows.writerows([("id", "prompt", "category"), *((i, caption, "x") for i, caption in enumerate(captions))])
    exact_or_refused(write("a.csv", table.getvalue()), captions)
    if "\n" not in "".join(captions):  # nothing is uncertain
        assert [prompt.text for prompt in read_prompts(write("a.csv", table.getvalue()))] == captions


@PROPERTY
@example(['a "b," c', "d"], HPD_HEADER.strip(), "{i},{text}")
@example(["a, b", "c"], "id,prompt,translation,note", "{i},{text}")
@given(
    PLAIN,
    st.sampled_from([HPD_HEADER.strip(), "id,prompt,translation,note", "id,prompt,category", "id,prompt"]),
    st.sampled_from(["{i},{text}", "{i},{text}\r"]),
)
def test_unquoted_files_whose_rows_end_with_the_caption(write, captions, header, row):
    captions = [*captions, "plain"]  # a caption without commas shows what the rows are like
    lines = [row.format(i=i, text=text) for i, text in enumerate(captions)]
    assume(not any(re.search(r'(^|,)"([^"]|"")*"(,|$)', caption) for caption in captions))  # by chance a quoted cell
    exact_or_refused(write("a.csv", "\n".join([header, *lines])), captions)


@PROPERTY
@given(PLAIN, st.sampled_from(["{text},x", "x,{text}", "{text},5", "{text}"]))
def test_unquoted_files_with_all_columns(write, captions, row):
    header = {"{text},x": "prompt,category", "x,{text}": "category,prompt", "{text},5": "prompt,seed", "{text}": "text"}
    path = write("a.csv", "\n".join([header[row], *(row.format(text=text) for text in captions)]))
    exact_or_refused(path, captions)


@PROPERTY
@given(PLAIN)
def test_unquoted_tab_separated_files(write, captions):
    path = write("a.tsv", "\n".join(["id\tprompt", *(f"{i}\t{text}" for i, text in enumerate(captions))]))
    quoted = all(text.startswith('"') and text.endswith('"') for text in captions if '"' in text)
    if quoted and '"' in "".join(captions):
        return  # balanced at the borders
    assert [prompt.text for prompt in read_prompts(path)] == captions
