"""What `--help` prints: the groups and settings of one job, with the comments of the config files."""

import inspect
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from golden_noise.cli.conf import CONF, choices, groups
from golden_noise.cli.schema import reads
from golden_noise.invocation import words

LINE = re.compile(r"(?P<indent> *)(?P<key>[\w.+-]+):(?P<value>.*?)(?:\s# (?P<comment>.*))?$")
END = "\n..."  # what YAML puts after a value alone
INTERNAL = ("hydra", "paths", "local")  # groups without a choice
HINTS = """\
--cfg job --resolve shows the composed config with all references filled in; -m runs every combination of
comma-separated values; errors come with a traceback if HYDRA_FULL_ERROR=1 is set."""


@dataclass
class Comments:
    """The comments of config files by dotted key: lines above it, and text beside it."""

    above: dict[str, list[str]] = field(default_factory=dict)
    beside: dict[str, str] = field(default_factory=dict)

    def read(self, file: Path, package: str) -> None:
        """Read a file's comments, after those of the files that it includes."""
        content: Any = OmegaConf.load(file)
        for entry in content.get("defaults", []):
            for name, choice in entry.items() if isinstance(entry, DictConfig) else [("", entry)]:
                group, _, inner = str(name).partition("@")
                included = CONF / group.strip("/") / f"{choice}.yaml" if group else file.parent / f"{choice}.yaml"
                if bool(group) == bool(inner) and included.is_file():  # else it is one of the job's groups
                    self.read(included, f"{package}.{inner}" if inner else package)
        lines: list[str] = []
        outer: list[tuple[int, str]] = []
        for line in file.read_text("utf-8").splitlines():
            if match := LINE.match(line):
                indent = len(match["indent"])
                outer = [(before, key) for before, key in outer if before < indent]
                key = ".".join([package, *(key for _, key in outer), match["key"]]).lstrip(".")
                outer.append((indent, match["key"]))
                self.above |= {key: lines} if lines else {}
                self.beside |= {key: match["comment"]} if match["comment"] else {}
            lines = [*lines, line.strip()] if line.strip().startswith("#") else []

    def shown(self, node: Any, key: str, depth: int = 0) -> Iterator[str]:
        """The lines of a setting and of all below it."""
        pad, comment = "  " * depth, f" # {self.beside[key]}" if key in self.beside else ""
        yield from (pad + line for line in self.above.get(key, ()))
        name = key.rpartition(".")[2]
        if isinstance(node, dict) and node:
            yield f"{pad}{name}:{comment}"
            yield from (f"{pad}  {line}" for line in self.above.get(f"{key}.defaults", ()))
            for inner, value in node.items():
                yield from self.shown(value, f"{key}.{inner}", depth + 1)
        else:
            text = yaml.safe_dump(node, default_flow_style=True, width=10**6, allow_unicode=True)
            yield f"{pad}{name}: {text.partition(END)[0].strip()}{comment}"


def job_help(job: Callable, config: DictConfig) -> str:
    """The job's docstring, its groups' choices, its own settings, and those of the chosen groups.

    Args:
        config: as composed, with Hydra's part, but without what the job does not read.
    """
    known = {name.partition("@")[0] for name in groups(config.job)}
    offered = [name for name in sorted(known) if name not in INTERNAL and reads(config.job, name)]
    comments = Comments()
    comments.read(CONF / f"{config.job}.yaml", "")
    for name in offered:
        for file in _chosen(name, config):
            comments.read(file, name)
    settings: Any = OmegaConf.to_container(config, resolve=False)
    names = [name for name in settings if name not in {*known, "hydra", "job"}]
    own = [line for name in names for line in comments.shown(settings[name], name)]
    rest = ["\n".join(comments.shown(settings[name], name)) for name in offered if name in settings]
    return "\n\n".join(
        [
            inspect.cleandoc(job.__doc__ or "").replace(f"python {config.job}.py", shlex.join(words())),
            "Groups, chosen with GROUP=CHOICE:",
            "\n".join(f"{name}: {', '.join(choices(name))}" for name in offered),
            "Settings, changed with KEY=VALUE:",
            "\n".join(own),
            "Settings of the chosen groups, changed with GROUP.KEY=VALUE:",
            *rest,
            HINTS,
        ]
    )


def _chosen(group: str, config: DictConfig) -> Iterator[Path]:
    """The chosen files of a group; all of its files where several were chosen, since each has its own key."""
    name = config.hydra.runtime.choices.get(group)
    for source in config.hydra.runtime.config_sources:
        if source.schema == "file":
            yield from (Path(source.path) / group).glob(f"{name if isinstance(name, str) else '*'}.yaml")
