"""Images drawn elsewhere: one folder per method, matched with each other and with the prompts."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from mimetypes import guess_type
from pathlib import Path
from typing import Any

from PIL import Image

from golden_noise.errors import UserError
from golden_noise.evaluation.samples import is_number, key, named_prompt, plain_number, samples_of, stated_prompt
from golden_noise.images import about, read_image
from golden_noise.prompts import Prompt

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
NAMED = 5  # names that a message gives for each type of mistake


class Folders:
    """The images of every method in a folder of its own, for the same prompts.

    An image's name without its suffix matches it with a prompt: the prompt's own file name where the prompt file has
    such a column, else the prompt's number if all names are numbers (0 is the first prompt, as the published code
    saves them). A prompt file may name the images of every folder, as `metadata.jsonl` of drawn images does:
    lines with the same name, prompt and seed count once. Without prompts the names, the same in all folders, serve as
    prompts.

    Images may be in a folder for each prompt, as GenEval has them, or for each category, as T2I-CompBench does; see
    `golden_noise.evaluation.samples`. Without prompts, theirs are those that these folders or names state.

    Args:
        folders: METHOD -> folder.
        prompts: None to use the names.

    Raises:
        UserError: one message with every missing, unexpected, doubled or unreadable image; images of other types than
            `SUFFIXES` and those in subfolders count as unexpected, other files do not. Or images whose metadata names
            other prompts.
    """

    def __init__(self, folders: Mapping[str, str], prompts: list[Prompt] | None) -> None:
        self.methods = list(folders)
        problems: list[str] = []
        by_method = {method: _images(Path(folder).expanduser(), problems) for method, folder in folders.items()}
        names = sorted(set().union(*by_method.values()), key=_natural)
        nested = any("/" in name for name in names)
        if prompts is None:
            first = {name: path for images in by_method.values() for name, path in images.items()}
            self.prompts, wanted = [named_prompt(i, name, first[name]) for i, name in enumerate(names)], names
        else:
            self.prompts, wanted = _matched(_once(prompts, nested), names, nested)
        for method, images in by_method.items():
            problems += _differences(folders[method], wanted, images)
        if prompts is not None and len(wanted) not in {len(images) for images in by_method.values()}:
            problems.append(f"{len(wanted):,} prompts: are these the images' own (prompts=file prompts.path=FILE)?")
        _refuse(problems)
        self._paths = {method: [images[name] for name in wanted] for method, images in by_method.items()}
        _refuse(_unreadable(path for paths in self._paths.values() for path in paths))
        if prompts is not None or nested:
            _refuse(_of_other_prompts(zip(self.prompts, *self._paths.values(), strict=True)))

    def draw(self, positions: range) -> None:
        """Nothing is missing."""

    def path(self, method: str, position: int) -> Path:
        """The image of one item."""
        return self._paths[method][position]


def _images(folder: Path, problems: list[str]) -> dict[str, Path]:
    """Name without suffix -> file; doubled names and images that are not read become a problem."""
    if not folder.is_dir():
        raise UserError(f"no folder {folder}: give evaluation.images.METHOD a folder of images")
    files: dict[str, list[Path]] = defaultdict(list)
    passed_over = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if samples := samples_of(path):
            for inside in samples:
                if inside.suffix.lower() in SUFFIXES:
                    files[key(inside, nested=True)].append(inside)
                elif _is_image(inside):
                    passed_over.append("/".join(inside.parts[-3:]))
        elif path.is_dir():
            passed_over += [f"{path.name}/{inside.name}" for inside in sorted(path.iterdir()) if _is_image(inside)]
        elif path.suffix.lower() in SUFFIXES:
            files[plain_number(path.stem)].append(path)
        elif _is_image(path):
            passed_over.append(path.name)
    unread = _listed(f"{folder} has images in subfolders or of other types, which are not read", passed_over)
    if not files:
        raise UserError("; ".join([f"no images in {folder}: it needs {', '.join(SUFFIXES)} files", *unread]))
    problems += unread
    doubled = [" and ".join(path.name for path in paths) for paths in files.values() if len(paths) > 1]
    problems += _listed(f"{folder} has one name twice", doubled)
    return {name: paths[0] for name, paths in files.items()}


def _is_image(path: Path) -> bool:
    return not path.name.startswith(".") and (guess_type(path.name)[0] or "").startswith("image/")


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if is_number(part) else (0, part) for part in name.split("/")]


def _once(prompts: list[Prompt], nested: bool) -> list[Prompt]:
    """The prompts, renumbered, without those that only name another method's image of the same item."""
    if not all("file" in prompt.tags for prompt in prompts):
        return prompts
    items: dict[tuple[str, str, int], Prompt] = {}
    for prompt in prompts:
        items.setdefault((key(Path(prompt.tags["file"]), nested), prompt.text, prompt.seed), prompt)
    return [replace(prompt, index=index) for index, prompt in enumerate(items.values())]


def _matched(prompts: list[Prompt], names: list[str], nested: bool) -> tuple[list[Prompt], list[str]]:
    """The prompt of every image that is wanted, and the image's name."""
    own = [key(Path(prompt.tags["file"]), nested) for prompt in prompts if "file" in prompt.tags]
    if len(own) == len(prompts):
        if doubled := [name for name, count in Counter(own).items() if count > 1]:
            raise UserError(f"two prompts name the image {doubled[0]!r}: every image needs a prompt of its own")
        return prompts, own
    if others := [name for name in names if not is_number(name.partition("/")[0])]:
        raise UserError(
            f"image {others[0]!r} matches no prompt: name the images 0, 1, 2 … in the order of the prompts, add a "
            "column file_name to the prompt file, or set evaluation.prompts=null to use the names as prompts"
        )
    if not nested:
        return prompts, [str(position) for position in range(len(prompts))]
    samples: dict[str, list[str]] = defaultdict(list)
    for name in names:
        samples[name.partition("/")[0]].append(name)
    pairs = [(prompt, name) for i, prompt in enumerate(prompts) for name in samples.get(str(i), [f"{i}/0"])]
    return [replace(prompt, index=index) for index, (prompt, _) in enumerate(pairs)], [name for _, name in pairs]


def _differences(folder: str, wanted: list[str], images: Mapping[str, Path]) -> list[str]:
    missing = [name for name in wanted if name not in images]
    surplus = sorted(images.keys() - set(wanted), key=_natural)
    extra = [name if "/" in name else images[name].name for name in surplus]
    return _listed(f"{folder} lacks images", missing) + _listed(f"{folder} has images without a prompt", extra)


def _of_other_prompts(items: Iterable[tuple[Any, ...]]) -> list[str]:
    """Images whose metadata names another prompt than the one they are matched with."""
    wrong = [
        f"{path} is of {own!r}, not of {prompt.text!r}"
        for prompt, *paths in items
        for path in paths
        if (own := about(path).get("prompt", stated_prompt(path) or prompt.text)) != prompt.text
    ]
    return _listed("images of other prompts", wrong)


def _unreadable(paths: Iterable[Path]) -> list[str]:
    with ThreadPoolExecutor() as threads:  # decoding releases the interpreter lock
        return _listed("unreadable", list(filter(None, threads.map(_mistake, paths))))


def _mistake(path: Path) -> str:
    try:
        with Image.open(path) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":  # a photograph with its preview
                return f"{path} ({frames} images in one file)"
            if image.mode.startswith(("I", "F")):  # Pillow would cut them off at 255
                return f"{path} ({image.mode}: more than 8 bits per channel, save it with 8)"
        read_image(path)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return f"{path} ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
    return ""


def _listed(what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return [f"{what}: {', '.join(names[:NAMED])}{more}"]


def _refuse(problems: list[str]) -> None:
    if problems:
        raise UserError("the images cannot be compared: " + "; ".join(problems))
