"""Where weights are: a folder, a hub id, or a folder of this package; and what is wrong with their files."""

import contextlib
import json
import logging
import re
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub.constants import ENDPOINT, HF_HUB_CACHE, HF_HUB_OFFLINE
from safetensors import SafetensorError, safe_open

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


def read_tensors(file: Path, source: str) -> Any:
    """The content of a .safetensors file or a torch checkpoint, on the CPU. Nothing in the file is executed.

    Raises:
        UserError: the file is damaged, compressed, or holds other objects than tensors and containers.
    """
    import torch  # these take seconds
    from safetensors.torch import load_file

    try:
        if file.suffix.lower() == ".safetensors":
            return load_file(file)
        if not _is_compressed(file):  # PyTorch does not compress, and a small file could fill the memory
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged or hostile files fail in every way
        reason = f": {fault}" if (fault := damage(file)) else ", or more than tensors: it is not loaded"
        raise UserError(f"{source} holds no tensors{reason}") from error
    raise UserError(f"{source} is not loaded: its tensors are larger than the file")


def _is_compressed(file: Path) -> bool:
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return sum(record.file_size for record in archive.infolist()) > file.stat().st_size


def damage(source: str | Path, weights: bool = True) -> str | None:
    """What visibly makes the files of a model useless; None if nothing does, or if there are none.

    Args:
        source: a file of weights, or a folder of such files and configs, with its subfolders.
        weights: whether to check files of weights: a folder may hold some that nobody reads.

    Returns:
        The file's name and what is wrong, such as "model.safetensors is empty".
    """
    path = Path(source).expanduser()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        fault = None
        with contextlib.suppress(OSError):
            if file.name in CONFIGS:
                fault = _config_fault(file)
            elif file.is_file() and (file == path or (weights and file.suffix.lower() in WEIGHTS)):
                fault = _weights_fault(file)
        if fault:
            return f"{file.name if file == path else file.relative_to(path)} {fault}"
    return None


def _config_fault(file: Path) -> str | None:
    content = file.read_bytes()
    try:
        return None if isinstance(json.loads(content), dict) else "is damaged: it holds no JSON object"
    except (ValueError, RecursionError):
        return _stand_in(content) or "is damaged: it is not JSON"


def _weights_fault(file: Path) -> str | None:
    with file.open("rb") as opened:
        start = opened.read(1024)
    if fault := _stand_in(start):
        return fault
    if start.startswith(b"PK") and not zipfile.is_zipfile(file):
        return "is cut off: its end is missing"
    if start[8:9] == b"{":  # safetensors: the header's length, the header, the tensors
        try:
            with safe_open(file, framework="np"):
                return None
        except SafetensorError as error:
            return f"is cut off or damaged: {first_line(error)}"
    return None


def _stand_in(start: bytes) -> str | None:
    """What is there in place of a file, by its first bytes."""
    if not start:
        return "is empty"
    if start.startswith(POINTER):
        return "is a Git LFS pointer and not the file itself: run `git lfs pull` where it was cloned"
    if start.removeprefix(b"\xef\xbb\xbf").lstrip()[:10].lower().startswith(PAGES):
        return "is a web page and not the file itself: download it again"
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
