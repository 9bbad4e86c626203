"""The table of candidates: what people may fill in, and what is refused with its line."""

import csv
import io

import pytest

from golden_noise.errors import UserError
from golden_noise.generation.candidates import SCORES, Origin, read_table, write_table
from golden_noise.prompts import Prompt
from tests.score_tables import rows_of, save

BY = Origin("a" * 16, "p")
PROMPTS = [Prompt(0, 'a "red" circle, twice\nover', 5), Prompt(1, "ü=1+1", 2**62), Prompt(2, "a", 5), Prompt(3, "a", 6)]


@pytest.fixture
def table(tmp_path):
    images = [[tmp_path / f"{i}_{member}.png" for member in range(3)] for i in range(len(PROMPTS))]
    write_table(tmp_path, images, PROMPTS, 0.25, BY)
    rows = rows_of(tmp_path / SCORES)
    assert len(rows) == 12
    for number, row in enumerate(rows):
        row["score"] = str(number % 3)
    return tmp_path / SCORES, rows


def test_a_table_is_read_as_it_was_written_in_any_order(table):
    path, rows = table
    save(path, rows[::-1])
    groups, drawn = read_table(path, BY)
    assert drawn == 4
    assert {(group.prompt.text, group.prompt.seed) for group in groups} == {(p.text, p.seed) for p in PROMPTS}
    assert all(group.scores == [0.0, 1.0, 2.0] and group.sigma == 0.25 for group in groups)


def test_groups_without_two_scores_are_left_out(table):
    path, rows = table
    for number in (0, 1, 2, 3, 4, 8):
        rows[number]["score"] = " "
    save(path, rows)
    groups, drawn = read_table(path, BY)
    assert drawn == 4
    assert [group.scores for group in groups] == [[0.0, 1.0, None], [0.0, 1.0, 2.0]]
    for row in rows:
        row["score"] = ""
    save(path, rows)
    with pytest.raises(UserError, match="no group has two different scores: fill in the column 'score'"):
        read_table(path, BY)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("score", "good", r"score 'good' must be a number from -1e9 to 1e9, or empty"),
        ("score", "nan", "must be a number from"),
        ("score", "1e999", "must be a number from"),
        ("score", "1e308", "must be a number from"),
        ("score", "-1000000001", "must be a number from"),
        ("score", "4,5", "score '4,5' must be a number from"),
        ("image", "1_0.png", "a cell of it was changed"),
        ("groups", "3", "a cell of it was changed"),
        ("groups", "", "seed, member and groups must be integers"),
        ("prompt", "b", "a cell of it was changed, or another pipeline drew it"),
        ("seed", "7", "a cell of it was changed"),
        ("seed", "5.5", "seed, member and groups must be integers"),
        ("member", "1", "a cell of it was changed"),
        ("sigma", "0.3", "a cell of it was changed"),
        ("network", "b" * 16, "drawn by the network bbbbbbbbbbbbbbbb, but this training starts from aaaaaaaaaaaaaaaa"),
    ],
)
def test_a_row_that_is_not_of_its_image_is_named_by_its_line(table, column, value, words):
    path, rows = table
    rows[8][column] = value
    save(path, rows)
    with pytest.raises(UserError, match=rf"scores.csv, line 13: .*{words}") as error:  # the first caption has two lines
        read_table(path, BY)
    assert "\n" not in str(error.value)


def test_missing_and_doubled_rows_are_named(table):
    path, rows = table
    save(path, [*rows[:7], *rows[8:]])
    with pytest.raises(UserError, match=r"line 11: the group of 'a' \(seed 5\) that begins here lacks member 1 of 3"):
        read_table(path, BY)
    save(path, [*rows, rows[4]])
    with pytest.raises(UserError, match=r"line 17: this image has a row already"):
        read_table(path, BY)


def test_cells_that_moved_to_other_rows_are_refused(table):
    """As if only some columns had been sorted."""
    path, rows = table
    images = [row["image"] for row in rows]
    for row, image in zip(rows, [images[-1], *images], strict=False):
        row["image"] = image
    save(path, rows)
    with pytest.raises(UserError, match=r"line 2: a cell of it was changed"):
        read_table(path, BY)


def test_whole_groups_may_be_missing_and_are_counted(table):
    path, rows = table
    save(path, rows[3:])
    groups, drawn = read_table(path, BY)
    assert len(groups) == 3 and drawn == 4


def test_the_rows_of_two_drawings_are_refused(table, tmp_path):
    path, rows = table
    for name, count in {"fewer": 1, "as_many": 4}.items():
        (tmp_path / name).mkdir()
        images = [[tmp_path / name / f"{i}_{member}.png" for member in range(3)] for i in range(count)]
        write_table(tmp_path / name, images, [Prompt(i, "ü", 100 + i) for i in range(count)], 0.25, BY)
        save(path, [*(rows[3:] if name == "fewer" else rows), *rows_of(tmp_path / name / SCORES)])
        with pytest.raises(UserError, match=r"line \d+: of another drawing than the 4 groups above"):
            read_table(path, BY)


@pytest.mark.parametrize(
    ("delimiter", "encoding"), [(";", "utf-8-sig"), ("\t", "utf-16"), (",", "utf-16"), ("\t", "utf-8"), (";", "utf-16")]
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_tables_of_all_spreadsheets_are_read(table, delimiter, encoding, line_end):
    path, rows = table
    for row in rows:
        row["score"] = row["score"] + (",5" if delimiter == ";" else ".5")
        row["sigma"] = row["sigma"].replace(".", "," if delimiter == ";" else ".")
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), delimiter=delimiter, lineterminator=line_end)
    writer.writeheader()
    for row in rows:
        writer.writerow(row)
        text.write(delimiter * (len(row) - 1) + line_end)  # a blank row
    path.write_bytes(text.getvalue().encode(encoding))
    groups, drawn = read_table(path, BY)
    assert len(groups) == drawn == 4 and all(group.scores == [0.5, 1.5, 2.5] for group in groups)
    assert {group.prompt.text for group in groups} == {prompt.text for prompt in PROMPTS}


def test_what_a_spreadsheet_would_take_for_a_number_begins_with_a_word(table, compose_job):
    _, rows = table
    assert all(row["check"].startswith("check-") for row in rows)
    assert Origin.of(compose_job("generate"), "12e4567890123456").network == "npnet-12e4567890123456"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "has no column 'image'"),
        (b"image;prompt;seed\n", "has no column 'member'.* must be the scores.csv of noise=candidates"),
        (b"image,prompt,seed,member,sigma,network,groups,check,score,Score\n", "has two columns 'score'"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (b"PK\x03\x04", "is packed .zip, as Excel's .xlsx is"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, content, words):
    (tmp_path / SCORES).write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_table(tmp_path / SCORES, BY)
    with pytest.raises(UserError, match="does not exist: draw candidates"):
        read_table(tmp_path / "none.csv", BY)


def test_a_row_with_too_few_cells_is_refused(table):
    path, _ = table
    with path.open("a") as file:
        file.write("x.png,a\n")
    with pytest.raises(UserError, match="line 17: 2 cells for 9 columns"):
        read_table(path, BY)
