# Vendored from golden_noise/npnet/core/options.py by python -m golden_noise.npnet.vendor; do not edit.
"""Options of networks, and how wrong ones are refused."""

from collections.abc import Sequence

from .errors import UserError


def check_choice(option: str, given: object, choices: Sequence[str]) -> None:
    """Refuses an option of unknown value."""
    if given not in choices:
        raise UserError(f"{option}: must be {', '.join(choices[:-1])} or {choices[-1]}, got '{given}'")


def check_count(option: str, given: object, largest: int | None = None) -> None:
    """Refuses what is no number from 1 to `largest`, the noise's smaller side."""
    if not isinstance(given, int) or given < 1 or (largest is not None and given > largest):
        bound = "an integer >= 1" if largest is None else f"an integer from 1 to {largest} (the noise's smaller side)"
        raise UserError(f"{option}: must be {bound}, got {given}")
