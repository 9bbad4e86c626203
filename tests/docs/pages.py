"""What the pages of the documentation hold: files that a reader is to write, and commands to run."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from golden_noise.__main__ import JOBS

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "experiments").glob("**/README.md"))
PACK = [ROOT / "comfyui/README.md", *sorted((ROOT / "comfyui/web/docs").glob("*.md"))]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PACK, *sorted((ROOT / "docs").glob("*.md")), *STUDIES]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"^`([\w./+-]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:[A-Z]\w*=\S+ )*(?:python (?:-m )?|golden-noise )[^`]+)`")
PROGRAMS = ("python", "golden-noise")
SPACES = re.compile(r"\s+")


@dataclass(frozen=True)
class Command:
    """A command line: `VARIABLE=VALUE ... python SCRIPT ARGUMENTS`, also `python -m MODULE` and `golden-noise COMMAND`.

    The program of `golden-noise JOB` is "JOB.py", that of its tools "golden-noise TOOL"."""

    text: str
    environment: dict[str, str]
    program: str
    arguments: list[str]

    @classmethod
    def parse(cls, text: str) -> "Command":
        words = shlex.split(text, comments=True)
        start = next(i for i, word in enumerate(words) if word in PROGRAMS)
        environment = dict(word.split("=", 1) for word in words[:start])
        program, *arguments = words[start + 1 :]
        if program == "-m":
            program, *arguments = arguments
        if words[start] == "golden-noise":
            program = f"{program}.py" if program in JOBS else f"golden-noise {program}"
        return cls(shlex.join(words), environment, program, arguments)


def written_files(page: Path) -> dict[str, str]:
    """The files that a page shows whole, by the path in front of each."""
    return dict(NAMED.findall(page.read_text("utf-8")))


def shell_commands(page: Path) -> list[Command]:
    """The commands in the page's shell blocks, in order."""
    blocks = [body for language, body in FENCE.findall(page.read_text("utf-8")) if language == "sh"]
    lines = [line for body in blocks for line in body.replace("\\\n", " ").splitlines()]
    return [Command.parse(line) for line in lines if re.match(r"(\w+=\S+ )*(python|golden-noise) ", line)]


def inline_commands(page: Path) -> list[Command]:
    """The commands in the page's running text; a program alone is only its name."""
    text = FENCE.sub("", page.read_text("utf-8"))
    commands = [Command.parse(SPACES.sub(" ", found)) for found in INLINE.findall(text)]
    return [command for command in commands if command.arguments]
