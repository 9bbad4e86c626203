"""The one error type that users are meant to see."""


class UserError(ValueError):
    """A mistake in the user's input: shown as one line, which says what, where and what to do."""
