"""The records of a table in text: which quotation marks quote, and which are part of the text.

RFC 4180 quotes a whole cell, border to border, and doubles the marks in it. Prompt files also come from programs that
never quote, so a mark may be anywhere. A line is read by RFC 4180 if all its marks fit; else they are text if a line
has them in pairs, or none begins a cell. Anything else, or what could be read in two ways, is refused.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from golden_noise.errors import UserError
from golden_noise.prompts.row import whole_caption

MARK = '"'


@dataclass(frozen=True)
class Record:
    """A row of a table.

    Attributes:
        line: number of its first line in the file.
        cells: the text of the cells.
        quoted: whether a cell stood in quotation marks, which are no part of its text.
        needed: columns of those that held a delimiter, a mark or a line end, and so had to be quoted.
        lines: if it has several, the cells of each of its lines if all marks were text.
    """

    line: int
    cells: list[str]
    quoted: bool = False
    needed: tuple[int, ...] = ()
    lines: tuple[list[str], ...] = ()


class Reader:
    """Splits a text into records.

    Args:
        marks: whether quotation marks may quote; else they are text.

    Raises:
        UserError: a mark opens a cell and is not closed, or it is uncertain whether marks quote.
    """

    def __init__(self, file: Path, text: str, delimiter: str, marks: bool) -> None:
        self.file, self.delimiter, self.marks = file, delimiter, marks
        self.lines = text.split("\n")
        border = f"(?={re.escape(delimiter)}|\r?\n|\r?\\Z)"
        self._quoted = re.compile(rf'"([^"]*+(?:""[^"]*+)*+)"{border}')

    def records(self) -> Iterator[Record]:
        """The records that are not blank."""
        start = 0
        while start < len(self.lines):
            record, count = self._record(start)
            if any(map(whole_caption, record.cells)):
                yield record
            start += count

    def _record(self, start: int) -> tuple[Record, int]:
        """The record that starts in a line, and how many lines it has."""
        line = self.lines[start].removesuffix("\r")
        if not self.marks or MARK not in line:
            return Record(start + 1, self._split(start, line)), 1
        if record := self._strict(start, line):
            return record, 1
        if line.count(MARK) % 2 == 0 or not any(c.lstrip().startswith(MARK) for c in line.split(self.delimiter)):
            return Record(start + 1, self._literal(start, line)), 1
        end = start + 1
        while end < len(self.lines) and self.lines[end].count(MARK) % 2 == 0:
            end += 1
        lines = self.lines[start : end + 1]
        record = self._strict(start, "\n".join(lines).removesuffix("\r")) if end < len(self.lines) else None
        if record is None:
            raise UserError(
                f"{self.file}, line {start + 1}: a quotation mark opens a cell here and is not closed at a cell's end: "
                "close it, double it within a quoted cell, or remove it"
            )
        return record, len(lines)

    def _strict(self, start: int, text: str) -> Record | None:
        """The record if every mark of the text is as RFC 4180 has it."""
        cells: list[str] = []
        needed: list[int] = []
        quoted, position = False, 0
        while True:
            if match := self._quoted.match(text, position):
                cell, end, quoted = match[1], match.end(), True
                if any(sign in cell for sign in (self.delimiter, MARK, "\n")):
                    needed.append(len(cells))
                cell = cell.replace(MARK * 2, MARK)
            else:
                end = text.find(self.delimiter, position)
                end = len(text) if end < 0 else end
                cell = text[position:end]
                if MARK in cell or "\n" in cell or "\r" in cell:
                    return None
            cells.append(cell)
            if end == len(text):
                naive = [line.split(self.delimiter) for line in text.split("\n")]
                return Record(start + 1, cells, quoted, tuple(needed), tuple(naive) if len(naive) > 1 else ())
            if text[end] != self.delimiter:  # a cell's end, but not the record's
                return None
            position = end + 1

    def _literal(self, start: int, line: str) -> list[str]:
        """The cells of a line whose marks are text."""
        cells = self._split(start, line)
        marked = [cell.strip() for cell in cells if MARK in cell]
        if marked[0].startswith(MARK) and marked[-1].endswith(MARK):
            raise UserError(
                f"{self.file}, line {start + 1}: its quotation marks may quote a cell or be part of the text: "
                "double the marks within a quoted cell, and put no space before it"
            )
        return cells

    def _split(self, start: int, line: str) -> list[str]:
        if "\r" in line:
            raise UserError(f"{self.file}, line {start + 1}: a carriage return within the line: end lines with \\n")
        return line.split(self.delimiter)
