"""Prompts from tables in text, CSV and TSV, quoted or not."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from golden_noise.errors import UserError
from golden_noise.prompts.commas import Commas, without_empty_end
from golden_noise.prompts.records import MARK, Reader, Record
from golden_noise.prompts.row import Row, caption_column, check_columns, read_row

TAB = "\t"
DELIMITERS = (",", ";", TAB)


def read_table(file: Path, text: str, delimiter: str) -> Iterator[Row]:
    """The rows of a table; where the header is one with another delimiter only, with that.

    Raises:
        UserError: no caption column, a row that cannot be read, or could be read in two ways.
    """
    first = next((line for line in text.split("\n") if line.strip(f"{delimiter} \r\t")), "")
    delimiters = (delimiter, *DELIMITERS)
    split = {d: _names(cell.strip().strip(MARK) for cell in first.split(d)) for d in delimiters}
    delimiter = next((d for d in delimiters if caption_column(split[d]) is not None), delimiter)
    records = _tab_records(file, text) if delimiter == TAB else list(Reader(file, text, delimiter, True).records())
    header, rows = (without_empty_end(records[0].cells, 1), records[1:]) if records else ([], [])
    names = _names(header)
    check_columns(str(file), names)
    _check_lines(file, [Record(1, header), *rows])
    if delimiter != TAB:
        rows = Commas(file, header, rows, delimiter).certain()
    for record in rows:
        place, cells = f"{file}, line {record.line}", without_empty_end(record.cells, len(names))
        if len(cells) > len(names):
            raise UserError(f"{place}: {len(cells)} cells for {len(names)} columns")
        row = read_row(place, dict(zip(names, cells, strict=False)))
        if row:
            yield row


def _names(header: Iterable[str]) -> list[str]:
    return [name.strip().lower() for name in header]


def _tab_records(file: Path, text: str) -> list[Record]:
    """Tab-separated values have no quotation marks but text, unless every one of them is at a cell's border."""
    reader = Reader(file, text, TAB, True)
    try:
        records = list(reader.records())
        _check_lines(file, records)
    except UserError:
        return list(Reader(file, text, TAB, False).records())
    if any(MARK in cell for record in records if not record.quoted for cell in record.cells):
        return list(Reader(file, text, TAB, False).records())
    return records


def _check_lines(file: Path, records: Sequence[Record]) -> None:
    """Check that no quoted cell has swallowed rows: a stray mark may meet another one many lines later.

    Raises:
        UserError: the lines of a cell could be rows of their own.
    """
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
