"""Which texts are URLs, and which are mistyped ones."""

import re

from golden_noise.errors import UserError


def is_url(text: str) -> bool:
    """Whether a text is a URL or a command after `pipe:`, and not a path."""
    return bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text))


def check_url(option: str, text: str) -> None:
    """Refuse a URL that nothing can open, before anything is loaded.

    Args:
        option: the setting that gave it, for the error.
        text: a path, which is not looked at, or a URL.

    Raises:
        UserError: it names no place, or fsspec knows no such protocol.
    """
    protocol, _, rest = text.partition(":")
    if not is_url(text) or protocol in ("pipe", "file"):
        return
    if not re.match("//[^/]", rest):
        raise UserError(f"{option}={text} is no whole address: write it like s3://BUCKET/PREFIX")
    import fsspec  # late: most jobs read no URL

    if protocol not in fsspec.available_protocols():
        raise UserError(f"{option}={text}: fsspec knows no {protocol}://; write it like s3://BUCKET/PREFIX")
