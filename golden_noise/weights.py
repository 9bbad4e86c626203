"""Where weights are: a folder, a hub id, or a folder that ships with this package."""

from pathlib import Path

from golden_noise.errors import UserError

PACKAGE = Path(__file__).parent
BUNDLED = "package:"


def looks_local(source: str) -> bool:
    """Whether `source` is written as a path, so that it cannot be a hub id."""
    return source.startswith((".", "/", "~"))


def locate(source: str, option: str) -> str:
    """The folder or hub id that `source` names; "package:PATH" is a folder inside this package.

    The prefix keeps installation paths out of saved configs. `option` names the setting in the error.

    Raises:
        UserError: it looks like a folder but there is none.
    """
    bundled = source.startswith(BUNDLED)
    folder = PACKAGE / source.removeprefix(BUNDLED) if bundled else Path(source).expanduser()
    if folder.is_dir():
        return str(folder)
    if bundled or source.count("/") != 1 or looks_local(source):
        raise UserError(f"no folder {folder}: give {option} an existing folder or a hub id such as ORG/NAME")
    return source
