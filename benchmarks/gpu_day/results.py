"""Results of sections on disk, and the table that is printed of them. Nothing here takes long to import."""

import json
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from golden_noise.files import write_atomically

HEAD = ("section", "what", "figure", "peak GiB", "goal", "met", "note")


@dataclass
class Row:
    """One figure. Without a value, the note says why there is none."""

    what: str
    value: float | None
    unit: str = ""
    peak_GiB: float | None = None
    goal: str = ""
    met: bool | None = None
    note: str = ""


@dataclass
class Result:
    """What a section has found so far; its file is whole at any moment."""

    section: str
    tiny: bool
    commit: str
    machine: dict[str, str] = field(default_factory=dict)
    complete: bool = False
    error: str | None = None
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """A row, instead of an earlier one of the same name."""
        names = [known.what for known in self.rows]
        if row.what in names:
            self.rows[names.index(row.what)] = row
        else:
            self.rows.append(row)

    def save(self, folder: Path) -> None:
        write_atomically(file_of(folder, self.section), json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, folder: Path, section: str) -> "Result | None":
        """What was saved; None if nothing was, or nothing that can be read."""
        try:
            saved: dict[str, Any] = json.loads(file_of(folder, section).read_text("utf-8"))
            return cls(**saved | {"rows": [Row(**row) for row in saved["rows"]]})
        except (OSError, ValueError, LookupError, TypeError):
            return None


def file_of(folder: Path, section: str) -> Path:
    return folder / f"{section}.json"


def commit_of(root: Path) -> str:
    """The commit that is measured, with + where files differ from it."""
    try:
        described = ["git", "-C", str(root), "describe", "--always", "--exclude=*", "--dirty=+"]
        return subprocess.run(described, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def table(results: Iterable[Result]) -> str:
    """Markdown, with a line of its own for whatever was measured elsewhere or did not end."""
    lines, places = [], []
    for result in results:
        lines += [_line((result.section, *_cells(row))) for row in result.rows]
        if result.error:
            lines.append(_line((result.section, "**error**", "–", "", "", "", result.error)))
        machine = ", ".join(result.machine.values()) or "unknown machine"
        places.append(f"{machine}, commit {result.commit}{', a tiny build: no figure counts' if result.tiny else ''}")
    measured = "\n".join(dict.fromkeys(places))
    return "\n".join([measured, "", _line(HEAD), _line(["---"] * len(HEAD)), *lines])


def _cells(row: Row) -> list[str]:
    figure = "–" if row.value is None else f"{_short(row.value)} {row.unit}".strip()
    peak = "" if row.peak_GiB is None else f"{row.peak_GiB:.1f}"
    met = {True: "yes", False: "**no**", None: ""}[row.met]
    return [row.what, figure, peak, row.goal, met, row.note]


def _short(value: float) -> str:
    """Three significant digits, or the whole number."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
