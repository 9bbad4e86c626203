"""What a composed config still needs before its job can be checked and run."""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict

from golden_noise.cli.arguments import ARGUMENT, groups, is_group
from golden_noise.cli.conf import CONF
from golden_noise.cli.help import unused
from golden_noise.errors import UserError

#: Paths that nothing else expands, so that `~/pairs` would be a folder called `~`; the first is part of the others.
PATHS = ("paths.outputs", "data_dir", "folder", "data.cache", "model.npnet.pretrained")
LOCAL = CONF / "local/default.yaml"
NEW_NAMES = (
    "callbacks.",
    "logger.",
    "metric.",
    "evaluation.images.",
    "evaluation.checkpoints.",
    "evaluation.searches.",
)


def complete(config: DictConfig) -> None:
    """Make a config what its job expects: without groups of other jobs, with empty ones, and with paths from `~`.

    Raises:
        UserError: the command line chose or added what the job has no use for.
    """
    given = [str(text) for text in HydraConfig.get().overrides.task]
    _drop_unused(config, given)
    _check_local(config)
    for group in groups(config.job):
        if not isinstance(config.get(group), (DictConfig, NoneType)):
            raise UserError(f"{group}={config[group]} must hold settings: choose one of the group by {group}=NAME")
    with open_dict(config):
        for group in ("logger", "callbacks", "metric"):
            if group in {*groups(config.job)} - {*unused(config.job)} and config.get(group) is None:
                config[group] = {}
        if config.job == "generate" and not _chose_prompts(config, given):
            config.pop("prompts", None)
    for key in PATHS:
        value = OmegaConf.select(config, key, throw_on_missing=False)
        if isinstance(value, str) and value.startswith("~"):
            OmegaConf.update(config, key, str(Path(value).expanduser()))
    _check_added(config, given)


#: What to say where a job has no use for a group that the command line chooses.
NO_USE = {
    "model": "only train.py trains a network; npnet= names a trained one to use",
    "trainer": "only train.py trains a network",
    "logger": "generate.py logs nothing",
}


def _drop_unused(config: DictConfig, given: Sequence[str]) -> None:
    for group in unused(config.job):
        for override in given:
            if re.match(rf"[+~]*{group}[=.@]", override) and not override.endswith("=[]"):
                raise UserError(f"{override}: {NO_USE[group]}")
        with open_dict(config):
            config.pop(group, None)


def _chose_prompts(config: DictConfig, given: Sequence[str]) -> bool:
    """Whether generate.py is to draw a set of prompts: a preset's does not stand against `prompt=`."""
    if any(re.match(r"\+*prompts[=.]", override) for override in given):
        return True
    return config.prompt is None and "_target_" in (config.get("prompts") or {})


def _check_added(config: DictConfig, given: Sequence[str]) -> None:
    """`+KEY=VALUE` adds anything. A key that nothing could read, most likely a misspelt one, is refused."""
    for match in filter(None, map(ARGUMENT.fullmatch, given)):
        if match["prefix"] and not is_group(match["key"]) and not _may_be_read(config, match["key"]):
            key = match["key"]
            raise UserError(f"{match[0]}: no setting {key}{suggestion(key, config.job)}; --help lists all")


def _check_local(config: DictConfig) -> None:
    """This machine's own settings are merged as they are: whatever is misspelt there would be without effect."""
    for group in ("local", "experiment"):
        if config.get(group):
            names = ", ".join(map(str, config[group]))
            raise UserError(f"a file in {group}/ lacks the first line '# @package _global_', so {names} had no effect")
    if not LOCAL.exists():
        return
    own: Any = OmegaConf.to_container(OmegaConf.load(LOCAL))
    others = {key for key in own if key != "defaults" and key not in config}
    for key in [*others, *(key for key in _keys(own) if key.partition(".")[0] in config)]:
        if not _may_be_read(config, key):
            raise UserError(f"{LOCAL}: no setting {key}{suggestion(key, config.job)}; --help lists all")


def _may_be_read(config: DictConfig, key: str) -> bool:
    """Whether some code may read a setting that was added: a class gets it, or config files know its last word."""
    if key.startswith(NEW_NAMES):
        return True
    *outer, leaf = key.split(".")
    nodes = (OmegaConf.select(config, ".".join(outer[: i + 1])) for i in range(len(outer)))
    takes_options = any("_target_" in node for node in nodes if isinstance(node, DictConfig))
    return takes_options or leaf in _words()


def suggestion(key: str, job: str) -> str:
    """The known setting that a misspelt one was meant to be, if one is near: `: did you mean seed?`"""
    choices = [a for a in sys.argv[1:] if (CONF / a.partition("=")[0]).is_dir() and not a.startswith(("-", "+", "~"))]
    try:
        started = GlobalHydra.instance().is_initialized()
        with nullcontext() if started else initialize_config_dir(str(CONF), version_base="1.3"):
            known = list(
                _keys(
                    OmegaConf.to_container(
                        compose(job, [*choices, *(["local=[]"] if LOCAL.exists() else [])]), resolve=False
                    )
                )
            )
    except HydraException:  # in a multirun, choices are lists
        return ""
    leaf = key.rpartition(".")[2]
    same_leaf = sorted((name for name in known if name.rpartition(".")[2] == leaf), key=lambda name: name.count("."))
    found = same_leaf[:2] or get_close_matches(key, known, n=1)  # steps: pipeline.steps or search.steps
    return f": did you mean {' or '.join(found)}?" if found else ""


def _keys(node: object, prefix: str = "") -> Iterator[str]:
    for key, value in node.items() if isinstance(node, dict) else ():
        yield f"{prefix}{key}"
        yield from _keys(value, f"{prefix}{key}.")


@cache
def _words() -> set[str]:
    """Every word of the config files, the user's own (`--config-dir`) included, but for this machine's."""
    folders = [source.path for source in HydraConfig.get().runtime.config_sources if source.schema == "file"]
    files = [path for folder in folders for path in Path(folder).rglob("*.yaml") if path != LOCAL]
    return {word for path in files for word in re.findall(r"[A-Za-z_]\w*", path.read_text("utf-8", "replace"))}
