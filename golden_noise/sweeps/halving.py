"""Successive halving: of the trainings that got equally far, only the best continue."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from golden_noise.sweeps.runs import Run

Curve = Sequence[tuple[int, float]]  # (epochs trained, value), in the order of the epochs; higher values are better


@dataclass(frozen=True)
class Halving:
    """Which trainings of a sweep are stopped, each on its own, without waiting for the others (ASHA, Li et al. 2020).

    Args:
        min_epochs: of the first comparison; the next one is at `eta` times as many epochs, and so on.
        eta: one in so many continues, and always the best one so far.
    """

    min_epochs: int
    eta: int = 3

    def __post_init__(self) -> None:
        if self.min_epochs < 1 or self.eta < 2:
            raise ValueError("min_epochs must be at least 1, eta at least 2")

    def stops(self, run: Run) -> bool:
        """Whether a training has fallen behind the others beside its folder."""
        curve = run.curve("val/explained")
        return bool(curve) and self.is_behind(curve, _beside(run.folder))

    def is_behind(self, curve: Curve, others: Iterable[Curve]) -> bool:
        """Whether a curve is not among the best at one of the epochs where trainings are compared."""
        curves, epochs = [curve, *others], self.min_epochs
        while epochs <= curve[-1][0]:
            values = sorted((v for c in curves if (v := _value(c, epochs)) is not None), reverse=True)
            own = _value(curve, epochs)
            if own is not None and own < values[max(1, len(values) // self.eta) - 1]:
                return True
            epochs *= self.eta
        return False


def _beside(folder: Path) -> list[Curve]:
    others = (path for path in folder.parent.iterdir() if path.is_dir() and path != folder)
    return [Run(path, {}, None).curve("val/explained") for path in others]


def _value(curve: Curve, epochs: int) -> float | None:
    """The value after so many epochs; where they were not validated, after the next ones that were."""
    return next((value for epoch, value in curve if epoch >= epochs), None)
