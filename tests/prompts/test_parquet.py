from pathlib import Path

import pytest

from golden_noise.errors import UserError
from golden_noise.prompts import Prompt, read_prompts

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def table(tmp_path):
    """Writes columns as a Parquet file and returns its path."""

    def write_table(columns):
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table(columns), path)
        return str(path)

    return write_table


def test_columns_are_read_as_in_other_files(table):
    path = table(
        {
            "Caption": ["one", None, " two\u2028 b", ""],
            "seed": pa.array([42, 1, None, 3]),
            "category": pa.array(["x", "x", None, "y"]).dictionary_encode(),
            "image": [{"bytes": b"x", "path": "p"}] * 4,
            "other": [[1.5]] * 4,
        }
    )
    first, second = read_prompts(path)
    assert first == Prompt(0, "one", 42, {"task": "x"})
    assert (second.text, second.tags) == ("two\u2028 b", {})


def test_seeds_that_pandas_made_floats(table):
    assert read_prompts(table({"text": ["a", "b"], "seed": [42.0, float("nan")]}))[0].seed == 42


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"words": ["a"]}, "a.parquet has no caption column"),
        ({"caption": [1]}, "are not text (int64)"),
        ({"caption": [["a", "b"]]}, "are not text (list"),
        ({"caption": ["a"], "Caption": ["b"]}, "two columns 'caption'"),
        ({"caption": ["a", "b"], "seed": [1, 1.5]}, "row 2: seed '1.5'"),
        ({"caption": ["a", "b\0"]}, "row 2: the caption"),
        ({"caption": ["a"], "Seed": [[1]]}, "the seeds in the column 'Seed' are not numbers (list"),
        ({"caption": ["a", None], "prompt": ["b", "real"]}, "row 2: 'caption' is empty, but 'prompt' is not"),
        ({"caption": pa.array([], pa.string())}, "holds no prompts"),
    ],
)
def test_what_is_refused(table, columns, words):
    with pytest.raises(UserError) as error:
        read_prompts(table(columns))
    assert words in str(error.value) and "\n" not in str(error.value)


def test_damaged_files(refusal, table):
    data = Path(table({"caption": ["a"]})).read_bytes()
    assert "a.parquet is not a whole Parquet file" in refusal("a.parquet", data[: len(data) // 2])
    assert "a.parquet is not a whole Parquet file" in refusal("a.parquet", b"")
    assert "a.parquet is not a whole Parquet file" in refusal("a.parquet", b"PAR1" + b"x" * 50 + b"PAR1")
    assert "b.txt is a Parquet file: call it b.parquet" in refusal("b.txt", data)
