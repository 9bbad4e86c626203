"""Images in the folders that evaluators of others read.

- GenEval's: `00000/samples/0000.png`, any number for each prompt, whose line of the set is `00000/metadata.jsonl`
  (Ghosh et al. 2023, github.com/djghosh13/geneval).
- T2I-CompBench's: `CATEGORY/samples/PROMPT_000000.png` (Huang et al. 2023, github.com/Karine-Huang/T2I-CompBench).
"""

from dataclasses import replace
from pathlib import Path

from golden_noise.errors import UserError
from golden_noise.images import about
from golden_noise.prompts import Prompt, read_prompts

SAMPLES, METADATA = "samples", "metadata.jsonl"


def samples_of(folder: Path) -> list[Path]:
    """The files that such a folder holds; none if it is no such folder."""
    inside = folder / SAMPLES
    return [path for path in sorted(inside.iterdir()) if not path.name.startswith(".")] if inside.is_dir() else []


def is_number(name: str) -> bool:
    """Whether a name is a number in plain digits."""
    return name.isascii() and name.isdigit()


def plain_number(stem: str) -> str:
    """`007` and `7` are the same number, and so the same image."""
    return str(int(stem)) if is_number(stem) else stem


def key(path: Path, nested: bool) -> str:
    """What the images of all methods for one item have in common: `3`, or `0/3` of `00000/samples/0003.png`."""
    name = plain_number(path.stem)
    sampled = nested and len(path.parts) > 2 and path.parts[-2] == SAMPLES
    return f"{plain_number(path.parts[-3])}/{name}" if sampled else name


def named_prompt(index: int, name: str, path: Path) -> Prompt:
    """The prompt of an image, as its folder or its name states it."""
    folder, _, stem = name.rpartition("/")
    if not folder:
        return Prompt(index, name.replace("_", " "), index)
    text, _, number = stem.rpartition("_")
    own = _metadata(path)
    if own is None and not (text and is_number(number)):
        raise UserError(f"{path} has neither {METADATA} in {path.parent.parent} nor a name like 'a red cup_000000'")
    prompt = own or Prompt(index, text, 0, {"task": folder})
    seed = about(path).get("seed", int(number) if is_number(number) else index)
    return replace(prompt, index=index, seed=seed)


def stated_prompt(path: Path) -> str | None:
    """The text of the prompt that GenEval's metadata give an image; None without any."""
    own = _metadata(path)
    return own.text if own else None


def _metadata(path: Path) -> Prompt | None:
    file = path.parent.parent / METADATA
    if path.parent.name != SAMPLES or not file.is_file():
        return None
    prompts = read_prompts(str(file))
    if len(prompts) > 1:
        raise UserError(f"{file} has {len(prompts):,} prompts: it needs the one of its images")
    return prompts[0]
