"""Where weights are: a folder, a hub id, or a folder that ships with this package."""

import contextlib
import json
import logging
import re
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from huggingface_hub.constants import ENDPOINT, HF_HUB_CACHE, HF_HUB_OFFLINE

from golden_noise.errors import UserError, first_line

PACKAGE = Path(__file__).parent
BUNDLED = "package:"
CONFIGS = ("config.json", "model_index.json", "scheduler_config.json")  # each holds an object
WEIGHTS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
POINTER = b"version https://git-lfs.github.com/spec/"
PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml")
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


def damage(place: str | Path, weights: bool = True) -> str | None:
    """What makes the files of a model useless at first sight; None if nothing does, or if there are none here.

    Args:
        place: a file of weights, or a folder of such files and configs (its subfolders count, too).
        weights: whether to look at files of weights: a folder may hold some that nobody reads.

    Returns:
        The file's name and what is wrong, such as "model.safetensors is empty".
    """
    found = Path(place).expanduser()
    files = sorted(found.rglob("*")) if found.is_dir() else [found]
    for file in files:
        fault = None
        with contextlib.suppress(OSError):
            if file.name in CONFIGS:
                fault = _config_fault(file)
            elif file == found or (weights and file.suffix.lower() in WEIGHTS):
                fault = _weights_fault(file) if file.is_file() else None
        if fault:
            return f"{file.relative_to(found) if found.is_dir() else file.name} {fault}"
    return None


def _config_fault(file: Path) -> str | None:
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return _stand_in(file.read_bytes()) or "is damaged: it is no JSON"
    return None if isinstance(content, dict) else "is damaged: it holds no JSON object"


def _weights_fault(file: Path) -> str | None:
    with file.open("rb") as opened:
        start = opened.read(1024)
        if fault := _stand_in(start):
            return fault
        if start[8:9] == b"{":  # safetensors: the header's length, the header, the tensors
            header, size = int.from_bytes(start[:8], "little"), file.stat().st_size
            opened.seek(8)
            whole = 8 + header
            with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError, AttributeError):
                if whole <= size:
                    tensors = json.loads(opened.read(header)).items()
                    whole += max((entry["data_offsets"][1] for name, entry in tensors if name[:2] != "__"), default=0)
            return f"is cut off: {size:,} of {whole:,} bytes are there" if whole > size else None
    if start.startswith(b"PK") and not zipfile.is_zipfile(file):
        return "is cut off: its end is missing"
    return None


def _stand_in(start: bytes) -> str | None:
    """What is there in place of a file, by its first bytes."""
    if not start:
        return "is empty"
    if start.startswith(POINTER):
        return "is a Git LFS pointer and not the file itself: run `git lfs pull` where it was cloned"
    if start.removeprefix(b"\xef\xbb\xbf").lstrip()[:10].lower().startswith(PAGES):
        return "is a web page and not the file itself: download it anew"
    return None


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
    """Whether there is a server behind a URL, whatever it says, for the hub's library."""
    from huggingface_hub import get_session

    try:
        get_session().head(url, timeout=seconds)
    except Exception:  # of whichever client the library uses
        return False
    return True


def why_missing(error: Exception, problem: str | None) -> str:
    """Why weights cannot be had; `problem` is what `hub_problem` said of them."""
    return f"{problem}, and it was not downloaded before" if problem else first_line(error)


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
def quiet(*names: str) -> Iterator[None]:
    """No word of some loggers and those below them, in a block that says itself what is wrong."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
