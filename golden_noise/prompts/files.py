"""Files of prompts, read exactly or refused with the line that is uncertain."""

import codecs
import contextlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from golden_noise.errors import UserError
from golden_noise.prompts.form import Form, files_of_set
from golden_noise.prompts.objects import read_json, read_json_lines
from golden_noise.prompts.parquet import read_parquet
from golden_noise.prompts.prompt import Prompt
from golden_noise.prompts.row import Row, whole_caption
from golden_noise.prompts.seeds import NoiseSeeds, Use
from golden_noise.prompts.tables import read_table

FORMATS = ".csv, .tsv, .jsonl, .json, .parquet or .txt"
TEXT = ("", ".txt", ".text", ".prompt", ".prompts", ".list", ".lst")
PACKED = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip, as Excel's .xlsx is",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
NO_PROMPTS = {
    "version https://git-lfs.github.com/spec": "a pointer of Git LFS and not the file itself: git lfs pull",
    "<!doctype html": "a web page: download the file itself",
    "<html": "a web page: download the file itself",
    "<?xml": "XML: save it as plain text",
    "{\\rtf": "rich text (RTF): save it as plain text",
    "%pdf-": "a PDF: save it as plain text",
}
MARKED = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def read_prompts(
    path: str,
    seed: int = 0,
    repeats: int = 1,
    limit: int | None = None,
    use: Use = "learning",
    files: Mapping[str, str] | None = None,
    **form: Any,
) -> list[Prompt]:
    """Read the prompts of a file: each as it is written there, or none and the line that is uncertain.

    A category becomes the prompt's "task", the name of an image its "file". Space around a caption is dropped, and a
    row without one skipped. Text is UTF-8, or UTF-16 with a byte-order mark.

    - `.csv`: a header with a caption column, of several the first of `CAPTION_COLUMNS`, in any case. Cells are quoted
      as in RFC 4180, or not at all: a mark within a cell is text, and so are unquoted commas where they can belong to
      the caption only (see `Commas`). A header with `;` or tabs makes these the delimiter, and so does `sep=;` above
      it. Every row that is not blank reaches the caption column.
    - `.tsv`: marks are text, unless every one stands at a cell's border.
    - `.jsonl`: an object per line, in JSON or as a Python literal. Only a line feed ends a line.
    - `.json`: a list of captions or objects, `{id: caption}`, `{id: object}`, an object with one list of captions or
      captioned objects, or one object. Each of these endings may hold what the other does. An object with a caption
      that may hold further ones is refused.
    - `.parquet`: needs the extra `parquet`.
    - `.txt` or no ending: a prompt per line, whatever is in it.

    Noise depends on the prompt, not on its line: a prompt without a seed of its own gets one by a hash of `seed`,
    `use`, its text, how many equal ones precede it, and the repeat.

    Args:
        seed: another one gives other noises.
        repeats: noises per prompt; the first is that of the prompt's own seed if it has one.
        limit: read at most this many prompts of the file.
        use: noises for learning are never those for evaluation.
        files: of a set with a file for each category, their names by category; `path` is their folder or one of them.
        form: what else the file must have, and what is kept of it; see `Form`.

    Raises:
        UserError: the file is missing, empty, or a line cannot be read for certain; `repeats` or `limit` is below 1.
    """
    for name, value in {"repeats": repeats, "limit": 1 if limit is None else limit}.items():
        if type(value) is not int or value < 1:
            raise UserError(f"prompts.{name}={value} must be an integer >= 1")
    seeds = NoiseSeeds(seed, use)
    rows = list(_set_rows(path, files, Form(**form)))[:limit]
    if not rows:
        raise UserError(f"{path} holds no prompts")
    return _prompts(rows, repeats, seeds)


def _existing(path: Any) -> Path:
    if not isinstance(path, str | os.PathLike) or not str(path).strip():
        raise UserError(f"prompts.path={path} must be a file, in quotation marks twice if it is a number: '\"123\"'")
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # too long a name, or no such user
        if (file := Path(path).expanduser()).is_file():
            return file
    raise UserError(f"no prompt file {path}: give prompts.path an existing {FORMATS} file")


def _set_rows(path: Any, files: Mapping[str, str] | None, form: Form) -> Iterator[Row]:
    """The rows of a file, or of all files of a set, each with its file's category."""
    if not files:
        yield from _rows(_existing(path), form)
        return
    for category, file in files_of_set(Path(str(path)), files):
        yield from (replace(row, tags=row.tags | {"task": category}) for row in _rows(_existing(file), form))


def _rows(file: Path, form: Form) -> Iterator[Row]:
    ending = file.suffix.lower()
    if ending in (".parquet", ".pq"):
        return read_parquet(file, form)
    text = read_text(file)
    if ending in (".csv", ".tsv"):
        return read_table(file, text, "," if ending == ".csv" else "\t", form)
    if ending == ".json":
        return read_json(file, text, form)
    if ending in (".jsonl", ".ndjson"):
        return read_json_lines(file, text, form)
    if ending in TEXT:
        return _lines(file, text, form)
    raise UserError(f"{file} has an unknown ending: give a {FORMATS} file")


def read_text(file: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 with a byte-order mark, without such marks.

    Raises:
        UserError: it is in another encoding, packed, or of a format that is no plain text.
        OSError: it cannot be read.
    """
    data = file.read_bytes()
    for start, name in PACKED.items():
        if data.startswith(start):
            raise UserError(f"{file} is packed ({name}): unpack it to a {FORMATS} file")
    if data[:4] == data[-4:] == b"PAR1":
        raise UserError(f"{file} is a Parquet file: call it {file.stem}.parquet")
    encoding = next((name for mark, name in MARKED.items() if data.startswith(mark)), "utf-8-sig")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(
            f"{file} is not UTF-8 text ({error.reason} at byte {error.start}, line {line}): save it as UTF-8"
        ) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise UserError(f"{file}, line {line}: a NUL character: save the file as UTF-8 text")
    first = text[:1000].lstrip("\ufeff \t\r\n").lower()
    for beginning, what in NO_PROMPTS.items():
        if first.startswith(beginning):
            raise UserError(f"{file} is {what}")
    return re.sub("^\ufeff+", "", text, flags=re.MULTILINE)  # joined files have marks in the middle


def _lines(file: Path, text: str, form: Form) -> Iterator[Row]:
    form.check(f"{file}, plain text,", [])
    for number, line in enumerate(text.split("\n"), start=1):
        caption = whole_caption(line.partition("\t")[0] if form.until_tab else line)
        if "\r" in caption:
            raise UserError(f"{file}, line {number}: a carriage return within the line: end lines with \\n")
        if caption:
            yield Row(caption, None, {})


def _prompts(rows: list[Row], repeats: int, seeds: NoiseSeeds) -> list[Prompt]:
    for row in rows:
        if row.seed is not None:
            seeds.keep(row.text, row.seed)
    prompts: list[Prompt] = []
    earlier = Counter[str]()
    for row in rows:
        for repeat in range(repeats):
            own = row.seed if repeat == 0 else None
            seed = seeds.draw(row.text, earlier[row.text], repeat) if own is None else own
            prompts.append(Prompt(len(prompts), row.text, seed, row.tags))
        earlier[row.text] += 1
    return prompts
