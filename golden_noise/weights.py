"""Where weights are: a folder, a hub id, or a folder that ships with this package."""

import contextlib
import re
import ssl
from functools import cache
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from huggingface_hub.constants import ENDPOINT, HF_HUB_CACHE, HF_HUB_OFFLINE

from golden_noise.errors import UserError

PACKAGE = Path(__file__).parent
BUNDLED = "package:"
REPOSITORY, COMMIT = re.compile(r"[\w-][\w.-]*/[\w.-]+"), re.compile("[0-9a-f]{40}")


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
def hub_commit(source: str, revision: str | None) -> str | None:
    """The commit that a revision (None: main) of a hub id stands for, as the hub says or else the last download.

    None where neither knows it, and for what is on this machine.
    """
    if not REPOSITORY.fullmatch(source) or Path(source).exists():
        return None
    revision = revision or "main"
    if COMMIT.fullmatch(revision):
        return revision
    if hub_problem(source) is None:
        from huggingface_hub import HfApi  # takes a second
        from huggingface_hub.errors import HfHubHTTPError

        with contextlib.suppress(HfHubHTTPError, OSError, ValueError):
            return HfApi().model_info(source, revision=revision, timeout=10).sha
    reference = Path(HF_HUB_CACHE) / f"models--{source.replace('/', '--')}" / "refs" / revision
    with contextlib.suppress(OSError):
        return reference.read_text().strip() or None
    return None


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
