"""Pages that open from disk without network, from Jinja templates, and the axes of their figures."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

HERE = Path(__file__).parent


def render(template: Path, **values: Any) -> str:
    """The HTML of a template, which may include the files beside it and those of this room.

    All values are escaped; one that the template uses and that is not given is an error.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(**values)


@dataclass(frozen=True)
class Axis:
    """A horizontal axis, in percent so that a figure fits any screen without scaling its text."""

    low: float
    high: float
    step: float

    @classmethod
    def over(cls, values: Iterable[float]) -> "Axis":
        """The axis from the smallest to the largest value, with about five round ticks."""
        values = list(values)
        low, high = min(values), max(values)
        if low == high:
            low, high = low - 0.5, high + 0.5
        power = 10 ** math.floor(math.log10((high - low) / 6))
        return cls(low, high, step=next(m * power for m in (1, 2, 5, 10) if m * power >= (high - low) / 6))

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Positions of the round values on the axis, with their labels."""
        decimals = max(0, -math.floor(math.log10(self.step) + 1e-9))
        first, last = math.ceil(self.low / self.step - 1e-9), math.floor(self.high / self.step + 1e-9)
        return [(self.at(k * self.step), f"{k * self.step:.{decimals}f}") for k in range(first, last + 1)]

    def at(self, value: float) -> float:
        """Position of a value in percent; a margin at both ends leaves room for the tick labels."""
        return round(4 + 92 * (value - self.low) / (self.high - self.low), 2)
