"""Unquoted commas: which of a row's commas separate cells, and which are part of its caption."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from golden_noise.errors import UserError
from golden_noise.prompts.records import MARK, Record
from golden_noise.prompts.row import FILE_COLUMNS, TAG_COLUMNS, caption_column

CHINESE = re.compile("[\u3400-\u9fff]")
FILE_NAME = re.compile(r"[^\s,;]+\.\w+")
NUMBER_OR_FILE = re.compile(rf"[0-9]+|{FILE_NAME.pattern}")
TRANSLATION = re.compile("zh|chinese|中文")  # names of columns with Chinese captions


class Commas:
    """Decides for the rows of a table where it is certain.

    Rows as long as the header are as they are, unless a space after a comma shows that it may be text. In others commas
    may be text:

    1. No row has more than the columns up to the caption, but for commas in it. This is certain if a column of
       Chinese captions follows that has no Chinese; or if all further commas, and no others, are followed by a space
       or stand between quotation marks, and fill the columns of no row, nor one that groups the statistics.
    2. A comma before a space or between marks is text, if this leaves as many cells as columns and changes the caption
       alone.
    3. The caption is the only column that can have the surplus commas, as the others hold numbers, file names, known
       categories or Chinese.

    Empty cells beyond the columns do not count, unless the last column itself is empty elsewhere. After a caption in
    the last column they are its commas, unless every row has as many.
    """

    def __init__(self, file: Path, header: Sequence[str], rows: Sequence[Record], delimiter: str) -> None:
        self.file, self.rows, self.delimiter = file, rows, delimiter
        self.padded = not header[-1].strip()
        header = without_empty_end(header, 1)
        self.names = [name.strip().lower() for name in header]
        caption = caption_column(self.names)
        assert caption is not None  # the header is checked
        self.caption, self.width = caption, len(header)
        self.tight = not any(name.startswith(" ") for name in header)
        after = self.names[caption + 1 : caption + 2]
        self.chinese = caption + 1 if after and TRANSLATION.search(after[0]) else None

    def certain(self) -> list[Record]:
        """The rows with whole captions.

        Raises:
            UserError: it is uncertain what a row's caption is.
        """
        self._short = [row for row in self.rows if len(row.cells) == self.caption + 1 < self.width]
        self._quotes = any(self.caption in row.needed for row in self.rows)
        if self._ends_with_caption():
            return [self._rest_in_caption(row) for row in self.rows]
        self._longer = any(len(row.cells) > self.width for row in self.rows)
        if self.caption + 1 == self.width and not self.padded:
            self.rows = self._without_padding()
        elif not any(len(row.cells) == self.width and not row.cells[-1].strip() for row in self.rows):
            self.rows = [self._trimmed(row) for row in self.rows]
        self._surplus = any(len(row.cells) > self.width for row in self.rows)
        return [self._read(row) for row in self.rows]

    def _trimmed(self, row: Record) -> Record:
        return replace(row, cells=without_empty_end(row.cells, self.width))

    def _without_padding(self) -> list[Record]:
        """The rows of a table that ends with the caption, without empty cells that are certainly not its commas."""
        longer = [row for row in self.rows if not row.quoted and len(row.cells) > self.width]
        padded = [row for row in longer if len(self._trimmed(row).cells) == self.width]
        if self.width > 1 and padded:
            alike = {len(row.cells) for row in self.rows} == {len(padded[0].cells)}
            if not alike or any(len(self._trimmed(row).cells) > self.width for row in self.rows):
                raise self._uncertain(padded[0], "the commas at its end may be part of the caption")
            return [self._trimmed(row) for row in self.rows]
        return [self._trimmed(row) if row.quoted else row for row in self.rows]

    def _ends_with_caption(self) -> bool:
        """Whether it is certain that no row goes on after its caption (1)."""
        longer = [row for row in self.rows if len(row.cells) > self.caption + 1]
        if not longer or self.caption + 1 == self.width:
            return False
        if self.chinese is not None and all(row.cells[self.chinese].strip() for row in longer):
            return not any(CHINESE.search(cell) for row in longer for cell in row.cells[self.chinese :])
        if {*self.names[self.caption + 1 :]} & {*TAG_COLUMNS} or any(len(row.cells) >= self.width for row in longer):
            return False
        before = [cell for row in self.rows for cell in row.cells[1 : self.caption + 1]]
        return bool(
            self._short
            and before
            and self.tight
            and not any(cell.startswith(" ") for cell in before)
            and all(len(self._joined(row)) == self.caption + 1 for row in longer)
        )

    def _rest_in_caption(self, row: Record) -> Record:
        if row.quoted and len(row.cells) > self.caption:
            raise self._uncertain(row, "it is quoted, but other lines have unquoted commas in their captions")
        before, rest = row.cells[: self.caption], row.cells[self.caption :]
        return replace(row, cells=[*before, self.delimiter.join(rest)] if rest else before)

    def _read(self, row: Record) -> Record:
        count = len(row.cells)
        if count <= self.caption or (count == self.caption + 1 and not self._irregular(row)):
            return row
        if count > self.width:
            return self._merge_caption(row)
        if count < self.width:
            raise self._uncertain(row, f"{count} cells for {self.width} columns")
        if self._quotes and row.quoted:
            return row
        if self._short and not self._quotes:
            other = self._short[0].line
            raise self._uncertain(row, f"line {other} ends with its caption, so that this caption may have a comma")
        if self._irregular(row):
            raise self._uncertain(row, "a comma may be part of the caption or separate cells")
        return row

    def _irregular(self, row: Record) -> bool:
        """Whether a row of the right length may have it by chance."""
        if row.quoted:
            return self._surplus and not row.needed
        if self._has_unusual_space(row):
            return True
        if MARK in self.delimiter.join(row.cells) and len(self._joined(row, spaces=False)) < len(row.cells):
            return True
        if self.chinese is not None and len(row.cells) > self.chinese:
            translation = row.cells[self.chinese]
            if translation.strip() and not CHINESE.search(translation):
                return True
        return self._longer and self.tight and len(self._joined(row)) < len(row.cells)

    def _has_unusual_space(self, row: Record) -> bool:
        """Whether the caption's cell or the next one starts with a space, which it does not in other rows."""
        for column in range(max(1, self.caption), min(len(row.cells), self.caption + 2)):
            certain = column == self.caption and NUMBER_OR_FILE.fullmatch(row.cells[column - 1].strip())
            if row.cells[column].startswith(" ") and column in self._tight_columns and not certain:
                return True
        return False

    @cached_property
    def _tight_columns(self) -> set[int]:
        """Columns in which the cells of some complete row start without a space."""
        rows = [row.cells for row in self.rows if len(row.cells) == self.width]
        return {column for cells in rows for column, cell in enumerate(cells) if cell.strip() and cell[0] != " "}

    def _merge_caption(self, row: Record) -> Record:
        """A row of more cells than columns with its caption in one cell (2, 3)."""
        surplus = len(row.cells) - self.width
        if row.quoted or (self._short and self.width > 1) or self._quotes:
            raise self._uncertain(row, f"{len(row.cells)} cells for {self.width} columns")
        merged = self._merged(row.cells, self.caption, surplus)
        if self.width == 1 or (self.tight and self._joined(row) == merged):
            return replace(row, cells=merged)
        possible = [
            column
            for column in range(self.width)
            if all(test(cell) for test, cell in zip(self._tests, self._merged(row.cells, column, surplus), strict=True))
        ]
        if possible == [self.caption]:
            return replace(row, cells=merged)
        raise self._uncertain(row, f"{len(row.cells)} cells for {self.width} columns")

    def _merged(self, cells: Sequence[str], start: int, surplus: int) -> list[str]:
        """The cells with `surplus` + 1 of them, from `start` on, in one."""
        end = start + surplus + 1
        return [*cells[:start], self.delimiter.join(cells[start:end]), *cells[end:]]

    def _joined(self, row: Record, spaces: bool = True) -> list[str]:
        """The cells of a row if commas before a space (where `spaces`) or between marks are text."""
        pairs = sum(cell.count(MARK) for cell in row.cells) % 2 == 0
        joined = row.cells[:1]
        for cell in row.cells[1:]:
            if (spaces and cell.startswith(" ")) or (pairs and joined[-1].count(MARK) % 2):
                joined[-1] += self.delimiter + cell
            else:
                joined.append(cell)
        return joined

    @cached_property
    def _tests(self) -> list[Callable[[str], bool]]:
        return [self._test(column) for column in range(self.width)]

    def _test(self, column: int) -> Callable[[str], bool]:
        """What a cell of a column must be, judged by the column's name and the rows of the right length."""
        known = {row.cells[column].strip() for row in self.rows if len(row.cells) == self.width}
        name = self.names[column]
        if column == self.caption:
            return lambda cell: self.chinese is None or not CHINESE.search(cell)
        if column == self.chinese:
            return lambda cell: bool(CHINESE.search(cell))
        if name == "seed" or (known and all(cell.isdigit() for cell in known)):
            return lambda cell: not cell.strip() or cell.strip().lstrip("+-").isdigit()
        if name in FILE_COLUMNS and all(map(FILE_NAME.fullmatch, known)):
            return lambda cell: bool(FILE_NAME.fullmatch(cell.strip()))
        if name in TAG_COLUMNS:
            return lambda cell: cell.strip() in known
        return lambda cell: True

    def _uncertain(self, row: Record, reason: str) -> UserError:
        return UserError(f"{self.file}, line {row.line}: {reason}: quote captions with commas, and fill all columns")


def without_empty_end(cells: Sequence[str], least: int) -> list[str]:
    """The cells without empty ones at the end, but at least `least`."""
    count = len(cells)
    while count > least and not cells[count - 1].strip():
        count -= 1
    return list(cells[:count])
