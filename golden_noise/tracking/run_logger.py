"""What a logger is given beside Lightning's metrics and hyperparameters, and the forms that several loggers share."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL.Image import Image

THUMBNAIL = 256  # the longer side of an image in a table, at most, where the logger keeps all of it in memory


class RunLogger(ABC):
    """A logger of Lightning's that also takes images, tables and the figures of a whole run.

    It begins a run when its `experiment` is first asked for. Only rank 0 writes.
    """

    @abstractmethod
    def log_grid(self, key: str, grid: Image, step: int, caption: str) -> None:
        """Log an image of one step."""

    @abstractmethod
    def log_table(self, key: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Log a table of numbers, texts and images; images are read one row at a time."""

    @abstractmethod
    def log_figures(self, figures: Mapping[str, Any]) -> None:
        """Log figures of the whole run."""

    @abstractmethod
    def finish(self) -> None:
        """End the run, after all is logged; Lightning's `finalize` only ends its training."""


def numbers(figures: Mapping[str, Any]) -> dict[str, float]:
    """The figures that are numbers."""
    return {key: value for key, value in figures.items() if isinstance(value, int | float)}


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their names on the command line, such as `recipe.lr`; other values than numbers as text."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value if isinstance(value, int | float | str) else str(value)
    return found


def thumbnail(cell: Any) -> Any:
    """A cell of a table, as it is unless it is a large image."""
    if isinstance(cell, Image) and max(cell.size) > THUMBNAIL:
        cell = cell.copy()
        cell.thumbnail((THUMBNAIL, THUMBNAIL))
    return cell


def remembered(file: Path) -> str | None:
    """The id of the run that a folder was logged to, so that a resumed one goes on there; None for a new one."""
    return file.read_text("utf-8") if file.is_file() else None
