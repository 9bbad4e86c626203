"""The config files and their choices."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

_INSTALLED = Path(__file__).parents[1] / "conf"
#: In the package of a wheel, beside it in a clone.
CONF = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[2] / "conf"


def groups(job: str) -> dict[str, Any]:
    """The groups of a job with their default choices; `_base` holds those of every job."""
    defaults: dict[str, Any] = {}
    for entry in OmegaConf.load(CONF / f"{job}.yaml").defaults:
        if entry == "_base":
            defaults |= groups("_base")
        elif isinstance(entry, DictConfig):
            defaults |= {str(name).removeprefix("optional "): choice for name, choice in entry.items()}
    return defaults


def choices(group: str) -> list[str]:
    """The choices of a group; files whose names start with `_` are only included by others."""
    return sorted(path.stem for path in (CONF / group).glob("[!_]*.yaml"))


def is_group(key: str) -> bool:
    """Whether a key chooses a file of a config group, such as `logger` or `prompts@evaluation.prompts`."""
    group = key.partition("@")[0]
    return key == "local" or (key.isascii() and "." not in group and (CONF / group).is_dir())
