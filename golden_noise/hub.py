"""Where weights are: a folder, a hub id, or a folder of this package."""

import contextlib
import logging
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from huggingface_hub.constants import ENDPOINT, HF_HUB_CACHE, HF_HUB_OFFLINE

from golden_noise.errors import UserError, first_line
from golden_noise.weight_files import damage

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


def in_run(folder: str | None, file: str) -> Path | None:
    """A file in the folder of a network, or of a training's best one if `folder` is its run; None if there is none."""
    places = [Path(folder or "").expanduser() / inside / file for inside in ("", "npnet/best", "best")]
    return next((place for place in places if folder and place.is_file()), None)


def fetch_file(source: str, option: str, revision: str | None = None) -> Path:
    """The file that `source` names: a path, or ORG/NAME/FILE on the hub.

    Raises:
        UserError: there is no such file, or it cannot be downloaded.
    """
    path, parts = Path(source).expanduser(), source.split("/", 2)
    if path.is_file():
        return path
    if looks_local(source) or len(parts) < 3 or not parts[2]:
        raise UserError(f"no file {path}: give {option} an existing file or ORG/NAME/FILE on the hub")
    return download("/".join(parts[:2]), parts[2], option, revision)


def download(repository: str, file: str, option: str, revision: str | None = None) -> Path:
    """A file of a hub repository, in the cache of downloads.

    Raises:
        UserError: it cannot be downloaded.
    """
    from huggingface_hub import hf_hub_download  # takes a second

    source = f"{repository}/{file}"
    try:
        cached_only = bool(hub_problem(source))
        return Path(hf_hub_download(repository, file, revision=revision, local_files_only=cached_only))
    except (OSError, ValueError) as error:
        raise UserError(f"{option}: cannot load {source}: {why_missing(error, source)}") from error


def hub_problem(source: str) -> str | None:
    """Why only the cache of earlier downloads can serve a hub id; None if the hub can, and for what is on this machine.

    The answer is for `local_files_only`. Left to itself without network, huggingface_hub 2.4 tries each file again for
    23 seconds: a cached model took 23 seconds to load, and a tokenizer that was not there four minutes.
    """
    if Path(source).expanduser().exists():
        return None
    if HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    return None if answers(ENDPOINT) else f"{ENDPOINT} does not answer"


def why_missing(error: Exception, source: str) -> str:
    """Why loading a folder, a hub id or ORG/NAME/FILE failed with `error`."""
    from huggingface_hub.errors import GatedRepoError

    if problem := hub_problem(source):
        return f"{problem}, and it was not downloaded before"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, GatedRepoError):
            page = f"https://huggingface.co/{'/'.join(source.split('/')[:2])}"
            return f"it is gated: accept its licence at {page} and log in (hf auth login)"
        cause = cause.__cause__ or cause.__context__
    return damage(source) or first_line(error)


@cache
def hub_commit(source: str, revision: str | None) -> str | None:
    """The commit of a revision (None: main) of a hub id, from the hub or else from the last download.

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
def answers(url: str) -> bool:
    """Whether a server answers at a URL, whatever it says, as the hub's library would ask it."""
    from huggingface_hub import get_session

    try:
        get_session().head(url, timeout=10)
    except Exception:  # of whichever client the library uses
        return False
    return True


def hide_reading() -> None:
    """No progress bars for reading weights from the disk, a matter of seconds; those of downloads stay."""
    import diffusers  # these take seconds
    import transformers
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars

    downloads = not are_progress_bars_disabled()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()  # switches the downloads' off, too
    if downloads:
        enable_progress_bars()


@contextlib.contextmanager
def quiet(name: str) -> Iterator[None]:
    """Silences a logger and those below it, in a block that reports errors itself."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
