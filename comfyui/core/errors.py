# Vendored from golden_noise/errors.py by python -m golden_noise.npnet.vendor; do not edit.
"""The one error type that users are meant to see."""


class UserError(ValueError):
    """A mistake in the user's input: shown as one line, which says what, where and what to do."""


def first_line(error: Exception) -> str:
    """Why something failed, without the advice and traces that libraries append."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def one_line(text: object, most: int | None = 200) -> str:
    """The first `most` characters of a text, on one line."""
    return " ".join(str(text).split())[:most]
