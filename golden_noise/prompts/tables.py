"""Prompts from tables in text, CSV and TSV, quoted or not."""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from golden_noise.errors import UserError
from golden_noise.prompts.commas import Commas, without_empty_end
from golden_noise.prompts.form import Form
from golden_noise.prompts.records import MARK, Reader, Record
from golden_noise.prompts.row import ANY, INTEGER, KNOWN_COLUMNS, Row, caption_column, check_columns, read_row

TAB = "\t"
DELIMITERS = (",", ";", TAB)
WHOLE_ROWS = "quote captions that have several lines or delimiters in them, and fill all columns"
NAMED = re.compile(r"\S*[0-9]\S*")  # 3b, p-12
DECLARED = re.compile('"?sep=([,;\t|])"?\\r?(?=\n)')  # Excel's first line, which names the delimiter


def read_table(file: Path, text: str, delimiter: str, form: Form = ANY) -> Iterator[Row]:
    """The rows of a table; with the delimiter that the header needs, or that a line above it names.

    Raises:
        UserError: no caption column, a row that cannot be read, or could be read in two ways.
    """
    text, delimiter = find_delimiter(text, delimiter, lambda names: caption_column(names) is not None)
    records = _tab_records(file, text) if delimiter == TAB else list(Reader(file, text, delimiter, True).records())
    header, rows = (without_empty_end(records[0].cells, 1), records[1:]) if records else ([], [])
    names = column_names(header)
    check_columns(str(file), names, form)
    _check_lines(file, [Record(1, header), *rows])
    _check_starts(file, names, rows)
    if delimiter != TAB:
        rows = Commas(file, records[0].cells, rows, delimiter).certain()
    _check_ends(file, names, rows)
    for record in rows:
        where, cells = f"{file}, line {record.line}", without_empty_end(record.cells, len(names))
        if len(cells) > len(names):
            raise UserError(f"{where}: {len(cells)} cells for {len(names)} columns")
        if row := read_row(where, dict(zip(names, cells, strict=False)), form):
            yield row


def find_delimiter(text: str, usual: str, is_header: Callable[[list[str]], bool]) -> tuple[str, str]:
    """The text without a line `sep=;` above it, and the delimiter: the one of that line or that the header needs.

    Args:
        usual: the delimiter if neither says so.
        is_header: whether these names, in lower case, are a header.
    """
    declared = DECLARED.match(text)
    if declared:
        text = text[declared.end() :]  # its line end stays: the lines keep their numbers
    first = next((line for line in text.split("\n") if line.strip(f"{usual} \r\t")), "")
    delimiters = (declared[1],) if declared else (usual, *DELIMITERS)
    split = {d: column_names(cell.strip().strip(MARK) for cell in first.split(d)) for d in delimiters}
    return text, next((d for d in delimiters if is_header(split[d])), delimiters[0])


def column_names(header: Iterable[str]) -> list[str]:
    """The names of columns as they are compared: in lower case, without space around them."""
    return [name.strip().lower() for name in header]


def _tab_records(file: Path, text: str) -> list[Record]:
    """Marks in tab-separated values are text, unless every one of them is at a cell's border.

    Raises:
        UserError: it is uncertain which holds, as some cells are certainly quoted or a cell may have several lines.
    """
    records, mixed = [], False
    try:
        for record in Reader(file, text, TAB, True).records():
            records.append(record)
    except UserError:
        mixed = True
    if mixed or any(MARK in cell for record in records if not record.quoted for cell in record.cells):
        literal = list(Reader(file, text, TAB, False).records())
        needed = [record for record in records if record.needed and not _are_whole_rows(record, literal)]
        if needed:
            raise UserError(
                f"{file}, line {needed[0].line}: a cell here is quoted, but in other lines quotation marks are text: "
                "quote all cells that have marks, and double the marks within them"
            )
        return literal
    try:
        _check_lines(file, records)
    except UserError:
        if any(record.lines and not _are_numbered(record) for record in records):
            raise
        return list(Reader(file, text, TAB, False).records())
    return records


def _are_whole_rows(record: Record, literal: Sequence[Record]) -> bool:
    """Whether every line of a record of several fills the table's columns, so that its marks may be text."""
    width = len(literal[0].cells)
    return bool(record.lines) and width > 1 and all(len(cells) == width for cells in record.lines)


def _are_numbered(record: Record) -> bool:
    """Whether each line of a record starts with a number of its own."""
    return all(len(cells) > 1 and INTEGER.fullmatch(cells[0].strip()) for cells in record.lines)


def _check_starts(file: Path, names: Sequence[str], rows: Sequence[Record]) -> None:
    """Refuse a row that ends before the caption, or has no number where most have.

    A line end in a caption that is not quoted makes such rows.
    """
    caption = caption_column(names) or 0
    numbers = [INTEGER.fullmatch(row.cells[0].strip()) is not None for row in rows]
    numbered = caption > 0 and names[0] not in KNOWN_COLUMNS and sum(numbers) * 2 >= len(rows) > 0 and numbers[0]
    for row in rows:
        first = row.cells[0].strip()
        if len(row.cells) <= caption:
            reason = f"the row ends before the caption in column {caption + 1}"
        elif numbered and not row.quoted and not NAMED.fullmatch(first) and (first or row.cells[1].startswith(" ")):
            reason = f"no number in the column {names[0]!r}, so that this may be a part of the row before"
        else:
            continue
        raise UserError(f"{file}, line {row.line}: {reason}: {WHOLE_ROWS}")


def _check_ends(file: Path, names: Sequence[str], rows: Sequence[Record]) -> None:
    """Refuse two rows that may be the halves of one: only the second has the columns after the caption."""
    caption, width = caption_column(names) or 0, len(names)
    if caption + 1 == width or not any(len(row.cells) >= width for row in rows):
        return
    for row, after in itertools.pairwise(rows):
        halves = len(row.cells) == caption + 1 and len(after.cells) == width - caption
        if halves and not (row.quoted or after.quoted):
            raise UserError(
                f"{file}, line {after.line}: this may be the end of line {row.line}, which lacks its last columns: "
                f"{WHOLE_ROWS}"
            )


def _check_lines(file: Path, records: Sequence[Record]) -> None:
    """Refuse a quoted cell whose lines could be rows: a stray mark may meet another one many lines later."""
    header, rows = records[0] if records else Record(1, []), records[1:]
    width, counts = len(header.cells), {len(record.cells) for record in records if not record.lines}
    if width == 1:  # every line looks like a row: certain if all cells are quoted, or others show that marks quote
        certain = all(record.quoted for record in rows) or any(record.needed and not record.lines for record in rows)
        suspects = [] if certain else [record for record in rows if record.lines]
    else:
        suspects = [record for record in rows if record.lines and _may_be_rows(record, counts, width)]
    if suspects:
        end = suspects[0].line + len(suspects[0].lines) - 1
        raise UserError(
            f"{file}, line {suspects[0].line}: a quotation mark opens a cell here that closes in line {end}, but the "
            "lines look like rows of their own: remove the mark, or write the line ends in the cell as spaces"
        )


def _may_be_rows(record: Record, counts: set[int], width: int) -> bool:
    alike = [len(cells) in counts or len(cells) > width for cells in record.lines if any(map(str.strip, cells))]
    inner = [len(cells) in counts and len(cells) > 1 for cells in record.lines[1:-1]]
    return all(alike) or any(inner)
