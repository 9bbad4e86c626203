"""What is asked of the image model: prompts with their place in a collection and the seed of their noise."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from golden_noise.errors import UserError

CAPTION_COLUMNS = ("caption", "prompt", "prompts", "text")
TAG_COLUMNS = ("category", "tag", "task")


@dataclass(frozen=True)
class Prompt:
    """One prompt of a collection.

    `index` is unique in the collection, `seed` draws the initial noise, and `tags` may name a "task".
    """

    index: int
    text: str
    seed: int
    tags: dict[str, str] = field(default_factory=dict)


def read_prompts(path: str, seed: int = 0, repeats: int = 1, limit: int | None = None) -> list[Prompt]:
    """Read prompts from a CSV, JSON Lines or plain text file.

    Args:
        path: `.csv` with a caption column, `.jsonl` with one object per line, anything else one prompt per line.
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
        raise UserError(f"no prompt file {path}: give prompts.path an existing .csv, .jsonl or .txt file")
    try:
        rows = list(_rows(file))[:limit]
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text: {error.reason} at byte {error.start}") from error
    except csv.Error as error:
        raise UserError(f"{path} is no CSV file: {error} (is a quotation mark left open?)") from error
    if not rows:
        raise UserError(f"{path} holds no prompts")
    return [
        Prompt(index, text, own_seed + repeat if own_seed is not None else seed + index, tags)
        for index, (repeat, (text, own_seed, tags)) in enumerate((r, row) for row in rows for r in range(repeats))
    ]


def _rows(file: Path) -> Iterator[tuple[str, int | None, dict[str, str]]]:
    """(text, own seed or None, tags) of every prompt in the file."""
    # utf-8-sig: spreadsheets put a byte-order mark in front of the first column's name.
    with file.open(encoding="utf-8-sig", newline="") as lines:
        if file.suffix.lower() == ".csv":
            yield from _csv_rows(file, csv.DictReader(lines))
        elif file.suffix.lower() in (".jsonl", ".json"):
            yield from _json_rows(file, lines)
        else:
            yield from ((line.strip(), None, {}) for line in lines if line.strip())


def _csv_rows(file: Path, reader: csv.DictReader) -> Iterator[tuple[str, int | None, dict[str, str]]]:
    columns = {name.strip().lower(): name for name in reader.fieldnames or []}
    caption = next((columns[name] for name in CAPTION_COLUMNS if name in columns), None)
    if caption is None:
        found = ", ".join(reader.fieldnames or []) or "none"
        raise UserError(
            f"{file} has no caption column: it needs one of {', '.join(CAPTION_COLUMNS)} (columns: {found})"
        )
    for row in reader:
        if None in row:  # the reader's key for surplus cells: a caption would end at its first comma
            raise UserError(f"{file}, line {reader.line_num}: more cells than columns, quote captions with commas")
        lower = {key.strip().lower(): value for key, value in row.items()}
        yield from _row(file, reader.line_num, lower, caption)


def _json_rows(file: Path, lines: Iterator[str]) -> Iterator[tuple[str, int | None, dict[str, str]]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{file}, line {number}: no JSON object ({error.msg})") from error
        caption = next((name for name in CAPTION_COLUMNS if isinstance(row, dict) and name in row), None)
        if caption is None:
            raise UserError(f"{file}, line {number}: no caption (needs a key {', '.join(CAPTION_COLUMNS)})")
        yield from _row(file, number, row, caption)


def _row(file: Path, number: int, row: dict, caption: str) -> Iterator[tuple[str, int | None, dict[str, str]]]:
    text = str(row.get(caption.strip().lower()) or "").strip()
    if not text:
        return
    seed = row.get("seed")
    try:
        own_seed = None if seed in (None, "") else int(str(seed))  # int() alone would cut 1.5 and take true for 1
    except ValueError as error:
        raise UserError(f"{file}, line {number}: seed {seed!r} is no whole number") from error
    task = next((str(row[name]) for name in TAG_COLUMNS if row.get(name)), None)
    yield text, own_seed, {"task": task} if task else {}
