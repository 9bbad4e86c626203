"""Where weights are: a folder, a hub id, or a folder that ships with this package."""

import ssl
from functools import cache
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE

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


def hub_problem(source: str) -> str | None:
    """Why only the cache of earlier downloads can serve a hub id; None if the hub can, and for what is on this machine.

    Without asking first, the hub's library tries again for most of a minute, file by file, and says so every time.
    """
    if Path(source).expanduser().exists():
        return None
    if HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    return None if answers(ENDPOINT) else f"{ENDPOINT} does not answer"


@cache
def answers(url: str, seconds: float = 10) -> bool:
    """Whether there is a server behind a URL, whatever it says."""
    try:
        urlopen(Request(url, method="HEAD"), timeout=seconds).close()
    except HTTPError:
        return True
    except URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # the hub's library may know certificates that Python does not
    except OSError:
        return False
    return True
