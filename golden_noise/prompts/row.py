"""One prompt of a file of any format: a caption, and optionally a seed, a category and a file name."""

import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from golden_noise.errors import UserError, one_line
from golden_noise.prompts.form import Form

CAPTION_COLUMNS = ("caption", "prompt", "prompts", "text")
TAG_COLUMNS = ("category", "tag", "task")
FILE_COLUMNS = ("file_name", "filename", "file", "image")
KNOWN_COLUMNS = (*CAPTION_COLUMNS, *TAG_COLUMNS, *FILE_COLUMNS, "seed")
LARGEST_SEED = 2**62
LARGEST_INTEGER_FLOAT = 2**53  # beyond it floats skip integers
INTEGER = re.compile(r"([+-]?[0-9]+)(\.0*)?")
BEFORE_CAPTION = re.compile(r"[\s\ufeff]+")  # joined files have a byte-order mark in the middle
INVISIBLE = ("Cf", "Zs", "Zl", "Zp")  # categories of characters that show nothing
FILLERS = "\u034f\u115f\u1160\u2800\u3164\uffa0\ufe0e\ufe0f"  # blank too, though letters, symbols or marks for Unicode
ANY = Form()


@dataclass(frozen=True)
class Row:
    """A prompt of a file; `seed` is None if the file gives none."""

    text: str
    seed: int | None
    tags: dict[str, str]


def check_columns(where: str, names: Sequence[str], form: Form = ANY) -> None:
    """Check the names of columns or keys, in lower case.

    Raises:
        UserError: a column that is read occurs twice, none holds captions, or one that the form needs is missing.
    """
    form.check(where, names)
    doubled = [name for name in (*KNOWN_COLUMNS, *form.read) if names.count(name) > 1]
    if doubled:
        raise UserError(f"{where} has two columns {doubled[0]!r}: rename the one that is not meant")
    if not {*CAPTION_COLUMNS} & {*names}:
        columns, captions = one_line(", ".join(names)) or "none", ", ".join(CAPTION_COLUMNS)
        raise UserError(f"{where} has no caption column: it needs one of {captions} (columns: {columns})")


def caption_column(names: Sequence[str]) -> int | None:
    """Number of the column that holds the captions: of several the first of `CAPTION_COLUMNS`."""
    return next((names.index(name) for name in CAPTION_COLUMNS if name in names), None)


def whole_caption(text: str) -> str:
    """The text without space around it; empty where nothing in it can be seen."""
    if start := BEFORE_CAPTION.match(text):
        text = text[start.end() :]
    text = text.rstrip()
    seen = any(unicodedata.category(letter) not in INVISIBLE and letter not in FILLERS for letter in text)
    return text if seen else ""


def read_row(where: str, values: Mapping[str, Any], form: Form = ANY) -> Row | None:
    """The prompt in the values of the columns, whose names are in lower case; None where the caption is empty.

    Args:
        where: file and line, for errors.

    Raises:
        UserError: the caption is not text, or empty where another column has one; or the seed is not an integer below
            2^62.
    """
    missing = [name for name, value in values.items() if isinstance(value, float) and math.isnan(value)]  # by pandas
    values = {**values, **dict.fromkeys(missing)}
    chosen, *others = [name for name in CAPTION_COLUMNS if name in values] or [""]
    caption = values.get(chosen)
    if not isinstance(caption, str | None):
        raise UserError(f"{where}: the caption {str(caption)[:50]!r} is not text")
    caption = whole_caption(caption or "")
    if not caption:
        if filled := [name for name in others if _has_text(values[name])]:
            raise UserError(f"{where}: {chosen!r} is empty, but {filled[0]!r} is not: fill it, or remove the other")
        return None
    if any("\ud800" <= letter <= "\udfff" for letter in caption):
        raise UserError(f"{where}: the caption {caption[:50]!r} holds half a character (a surrogate)")
    if "\0" in caption:
        raise UserError(f"{where}: the caption {caption[:50]!r} holds a NUL character")
    return Row(caption, _seed(where, values.get("seed")), _tags(values, form))


def _has_text(value: Any) -> bool:
    return bool(whole_caption(value)) if isinstance(value, str) else value not in (None, [], {})


def _is_missing(value: Any) -> bool:
    return value is None or str(value).strip().lower() in ("", "nan")


def _seed(where: str, seed: Any) -> int | None:
    if _is_missing(seed):
        return None
    if isinstance(seed, float) and seed.is_integer() and abs(seed) < LARGEST_INTEGER_FLOAT:
        return int(seed)
    integer = None if isinstance(seed, bool | float) else INTEGER.fullmatch(str(seed).strip())
    if integer is None:
        raise UserError(f"{where}: seed {str(seed)[:50]!r} is not an integer")
    if len(integer[1]) > 25 or abs(int(integer[1])) >= LARGEST_SEED:
        raise UserError(f"{where}: seed {str(seed)[:50]} is too large, it must be below 2^62")
    return int(integer[1])


def _tags(values: Mapping[str, Any], form: Form) -> dict[str, str]:
    columns = [form.category.lower()] if form.category else TAG_COLUMNS
    task = next((str(values[name]).strip() for name in columns if not _is_missing(values.get(name))), "")
    file = next((values[name].strip() for name in FILE_COLUMNS if isinstance(values.get(name), str)), "")
    kept = {name.lower(): values.get(name.lower()) for name in form.keep}
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in kept.items() if value}
    return {name: value for name, value in (("task", task), ("file", file), *texts.items()) if value}
