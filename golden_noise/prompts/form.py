"""What a published set of prompts has beyond any prompt file: columns that it needs, and a file for each category."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from golden_noise.errors import UserError, one_line


@dataclass(frozen=True)
class Form:
    """How to read a file of prompts. Names of columns, or of keys, count in any case.

    Attributes:
        columns: that the file must have, so that another file is not taken for the set.
        category: the column that groups the statistics; by default the first of `TAG_COLUMNS`.
        keep: columns that become tags of the prompt too, if the file has them; what is no text, as JSON.
        until_tab: whether a prompt of plain text ends at the first tab of its line.
    """

    columns: Sequence[str] = ()
    category: str | None = None
    keep: Sequence[str] = ()
    until_tab: bool = False

    @property
    def needed(self) -> list[str]:
        """The columns that the file must have, as they are written in the config."""
        return list(dict.fromkeys([*self.columns, *([self.category] if self.category else [])]))

    @property
    def read(self) -> list[str]:
        """Columns that are read beside those that every file may have, in lower case."""
        return [name.lower() for name in (*self.needed, *self.keep)]

    def check(self, where: str, names: Sequence[str]) -> None:
        """Raise a UserError if one of the needed columns is not among the names, which are in lower case."""
        missing = [name for name in self.needed if name.lower() not in names]
        if missing:
            have = one_line(", ".join(names)) or "none"
            raise UserError(f"{where} lacks {', '.join(missing)}: it needs {', '.join(self.needed)} (columns: {have})")


def files_of_set(path: Path, files: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    """Category and file, of all files of a set in a folder, or of the one that is given.

    Args:
        files: the name of each category's file. One that is given alone may have any name that starts like its
            category: `color_train.txt` is of `color`.

    Raises:
        UserError: the folder lacks a file, or the file is none of the set.
    """
    folder = Path(os.path.expanduser(path))
    if os.path.isdir(folder):  # of any text: pathlib fails at too long a name
        if missing := [name for name in files.values() if not (folder / name).is_file()]:
            raise UserError(f"{path} lacks {', '.join(missing)}: it needs {', '.join(files.values())}")
        yield from ((category, folder / name) for category, name in files.items())
        return
    category = next((each for each in files if path.stem == each or path.stem.startswith(f"{each}_")), None)
    if category is None:
        raise UserError(f"{path} is no file of this set: give one of {', '.join(files.values())}, or their folder")
    yield category, path
