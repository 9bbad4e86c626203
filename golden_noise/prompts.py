"""What is asked of the image model: prompts with their place in a collection and the seed of their noise."""

import ast
import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from golden_noise.errors import UserError

CAPTION_COLUMNS = ("caption", "prompt", "prompts", "text")
TAG_COLUMNS = ("category", "tag", "task")
FILE_COLUMNS = ("file_name", "filename", "file", "image")
KNOWN_COLUMNS = (*CAPTION_COLUMNS, *TAG_COLUMNS, *FILE_COLUMNS, "seed")
LARGEST_SEED = 2**62  # torch takes 64 bits, and repeats add to it
CHINESE = re.compile("[\u3400-\u9fff]")

Row = tuple[str, int | None, dict[str, str]]  # text, own seed or None, tags


@dataclass(frozen=True)
class Prompt:
    """One prompt of a collection.

    `index` is unique in the collection, `seed` draws the initial noise, and `tags` may name a "task" and a "file".
    """

    index: int
    text: str
    seed: int
    tags: dict[str, str] = field(default_factory=dict)


def read_prompts(path: str, seed: int = 0, repeats: int = 1, limit: int | None = None) -> list[Prompt]:
    """Read prompts from a CSV, JSON Lines or plain text file, as DrawBench, HPD, Pick-a-Pic and GenEval come.

    A category becomes the prompt's "task", the name of an image its "file".

    Args:
        path: `.csv` or `.tsv` with a caption column, of several the first of `CAPTION_COLUMNS`; surplus cells of a line
            are what unquoted commas cut off its caption. `.jsonl` with one object per line, in JSON or as a Python
            literal. `.json` with a list of objects or of captions. Anything else is one prompt per line.
        seed: the first noise seed; a prompt that brings its own seed keeps it.
        repeats: noises per prompt, each with a seed of its own.
        limit: at most so many prompts of the file.

    Raises:
        UserError: the file is missing, empty, or a line cannot be read; `repeats` or `limit` is below 1.
    """
    if repeats < 1 or (limit is not None and limit < 1):
        raise UserError(f"prompts.repeats={repeats} and prompts.limit={limit} must be >= 1")
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"no prompt file {path}: give prompts.path an existing .csv, .tsv, .jsonl, .json or .txt file")
    try:
        rows = list(_rows(file))[:limit]
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8") from error
    except csv.Error as error:
        raise UserError(f"{path} is no CSV file: {error} (is a quotation mark left open?)") from error
    if not rows:
        raise UserError(f"{path} holds no prompts")
    return [
        Prompt(index, text, own_seed + repeat if own_seed is not None else seed + index, tags)
        for index, (repeat, (text, own_seed, tags)) in enumerate((r, row) for row in rows for r in range(repeats))
    ]


def _rows(file: Path) -> Iterator[Row]:
    """Every prompt in the file."""
    kind = file.suffix.lower()
    # utf-8-sig: spreadsheets put a byte-order mark in front of the first column's name.
    with file.open(encoding="utf-8-sig", newline="") as lines:
        if kind in (".csv", ".tsv"):
            yield from _csv_rows(file, csv.reader(lines, delimiter="," if kind == ".csv" else "\t"))
        elif kind == ".json":
            yield from _json_rows(file, lines.read())
        elif kind == ".jsonl":
            yield from _json_lines(file, lines)
        else:
            yield from ((line.strip(), None, {}) for line in lines if line.strip())


def _csv_rows(file: Path, reader: Any) -> Iterator[Row]:
    rows = ((reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells))
    _, header = next(rows, (0, []))
    columns = [name.strip().lower() for name in header]
    caption = next((columns.index(name) for name in CAPTION_COLUMNS if name in columns), None)
    if caption is None:
        found = " ".join(", ".join(header).split()) or "none"
        raise UserError(
            f"{file} has no caption column: it needs one of {', '.join(CAPTION_COLUMNS)} (columns: {found})"
        )
    doubled = sorted({name for name in columns if name in KNOWN_COLUMNS and columns.count(name) > 1})
    if doubled:
        raise UserError(f"{file} has two columns {doubled[0]!r}: rename the one that is not meant")
    for number, cells in rows:
        if len(cells) > len(columns):
            cells = _mended(file, number, cells, caption, surplus=len(cells) - len(columns))
        yield from _row(file, number, dict(zip(columns, cells, strict=False)))


def _mended(file: Path, number: int, cells: Sequence[str], caption: int, surplus: int) -> list[str]:
    """A line whose caption has unquoted commas, with the caption in one cell again."""
    parts = cells[caption : caption + surplus + 1]
    # Where a Chinese caption follows, it may be the one with the commas.
    if not CHINESE.search(parts[0]) and any(CHINESE.search(part) for part in parts):
        raise UserError(f"{file}, line {number}: more cells than columns, quote captions with commas")
    return [*cells[:caption], ",".join(parts), *cells[caption + surplus + 1 :]]


def _json_rows(file: Path, text: str) -> Iterator[Row]:
    """A list of objects or captions, or else one object per line."""
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        entries = None
    if not isinstance(entries, list):
        yield from _json_lines(file, iter(text.splitlines()))
        return
    for number, entry in enumerate(entries, start=1):
        yield from _object_row(file, number, {"caption": entry} if isinstance(entry, str) else entry, "entry")


def _json_lines(file: Path, lines: Iterator[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield from _object_row(file, number, parse_object(file, number, line.strip()), "line")


def parse_object(file: Path, number: int, line: str) -> Any:
    """A line as JSON, or as the Python literal that some published files hold; nothing in it is run.

    Raises:
        UserError: it is neither.
    """
    try:
        return json.loads(line)
    except ValueError as error:  # JSONDecodeError, or a number of too many digits
        try:
            return ast.literal_eval(line)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            raise UserError(f"{file}, line {number}: no JSON object ({error})") from error
    except RecursionError as error:
        raise UserError(f"{file}, line {number}: no JSON object (too deeply nested)") from error


def _object_row(file: Path, number: int, row: Any, unit: str) -> Iterator[Row]:
    lower = {str(name).strip().lower(): value for name, value in row.items()} if isinstance(row, dict) else {}
    if not set(CAPTION_COLUMNS) & lower.keys():
        raise UserError(f"{file}, {unit} {number}: no caption (needs a key {', '.join(CAPTION_COLUMNS)})")
    yield from _row(file, number, lower, unit)


def _row(file: Path, number: int, row: dict[str, Any], unit: str = "line") -> Iterator[Row]:
    """The prompt of a line by its columns in lower case; none where the caption is empty."""
    caption = next((row[name] for name in CAPTION_COLUMNS if name in row), None)
    if not isinstance(caption, str | None):
        raise UserError(f"{file}, {unit} {number}: the caption {str(caption)[:50]!r} is no text")
    if not caption or not caption.strip():
        return
    if any("\ud800" <= letter <= "\udfff" for letter in caption):
        raise UserError(f"{file}, {unit} {number}: the caption {caption[:50]!r} holds half a character (a surrogate)")
    seed = row.get("seed")
    try:
        own_seed = None if seed in (None, "") else int(str(seed))  # int() alone would cut 1.5 and take true for 1
    except ValueError as error:
        raise UserError(f"{file}, {unit} {number}: seed {seed!r} is no whole number") from error
    if own_seed is not None and abs(own_seed) >= LARGEST_SEED:
        raise UserError(f"{file}, {unit} {number}: seed {str(seed)[:50]} is too large, it must be below 2^62")
    yield caption.strip(), own_seed, _tags(row)


def _tags(row: dict[str, Any]) -> dict[str, str]:
    task = next((str(row[name]).strip() for name in TAG_COLUMNS if row.get(name)), "")
    file = next((row[name].strip() for name in FILE_COLUMNS if isinstance(row.get(name), str)), "")
    return {name: value for name, value in (("task", task), ("file", file)) if value}
