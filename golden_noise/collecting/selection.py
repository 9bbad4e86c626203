"""Which pairs a collection keeps: those whose golden image scores better, in one metric or several."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from golden_noise.errors import UserError

FORMS = "a metric, a weighted sum {METRIC: WEIGHT, ...}, or a list of these that must all improve"


@dataclass(frozen=True)
class Selection:
    """Keeps a pair if every one of its sums improves by more than `margin`.

    Attributes:
        sums: weights of metrics, {metric: weight}, one dict for each sum.
    """

    sums: tuple[dict[str, float], ...]
    margin: float = 0.0

    @classmethod
    def parse(cls, select_by: Any, margin: float, known: Collection[str]) -> "Selection | None":
        """The selection that the config's `collection.select_by` describes; None keeps every pair.

        Args:
            select_by: one of `FORMS`, as plain Python values.
            known: names of the chosen metrics.
        """
        if select_by is None:
            return None
        parts = select_by if isinstance(select_by, list) else [select_by]
        sums = tuple({part: 1.0} if isinstance(part, str) else part for part in parts)
        if not sums or not all(isinstance(each, dict) and each for each in sums):
            raise UserError(f"collection.select_by={select_by} must be null, {FORMS}")
        for name, weight in (item for each in sums for item in each.items()):
            if name not in known:
                raise UserError(f"collection.select_by={name} is not one of the chosen metrics: {', '.join(known)}")
            if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not weight:
                raise UserError(f"collection.select_by: the weight of {name} is {weight}, it must be a number, not 0")
        return cls(sums, margin)

    def accepts(self, scores: Mapping[str, tuple[float, float]]) -> bool:
        """Whether to keep a pair with these scores, (standard, golden) per metric."""
        gains = {name: golden - standard for name, (standard, golden) in scores.items()}
        return all(sum(w * gains[name] for name, w in weights.items()) > self.margin for weights in self.sums)
