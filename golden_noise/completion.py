"""What a composed config still needs before its job can be checked and run."""

import re
import sys
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict

from golden_noise.arguments import ARGUMENT, groups, is_group
from golden_noise.errors import UserError
from golden_noise.help import CONF, unused

#: Paths that nothing else expands, so that `~/pairs` would be a folder called `~`; the first is part of the others.
PATHS = ("paths.outputs", "data_dir", "folder", "data.cache", "model.npnet.pretrained")
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
    with open_dict(config):
        for group in ("logger", "callbacks", "metric"):
            if group in groups(config.job) and config.get(group) is None:
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
    words: set[str] = set()
    for override in given:
        match = ARGUMENT.fullmatch(override)
        if match is None or not match["prefix"] or is_group(key := match["key"]) or key.startswith(NEW_NAMES):
            continue
        *outer, leaf = key.split(".")
        nodes = (OmegaConf.select(config, ".".join(outer[: i + 1])) for i in range(len(outer)))
        if any("_target_" in node for node in nodes if isinstance(node, DictConfig)):
            continue  # its class says which options it takes
        words = words or _words()
        if leaf not in words:
            raise UserError(f"{override}: no setting {key}{suggestion(key, config.job)}; --help lists all")


def suggestion(key: str, job: str) -> str:
    """The known setting that a misspelt one was meant to be, if one is near: `: did you mean seed?`"""
    choices = [a for a in sys.argv[1:] if (CONF / a.partition("=")[0]).is_dir() and not a.startswith(("-", "+", "~"))]
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            known = list(_keys(OmegaConf.to_container(compose(job, choices), resolve=False)))
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


def _words() -> set[str]:
    """Every word of the config files, the user's own (`--config-dir`) included."""
    own = get_args_parser().parse_args(sys.argv[1:]).config_dir
    files = [path for folder in (CONF, *filter(None, [own])) for path in Path(folder).rglob("*.yaml")]
    return {word for path in files for word in re.findall(r"[A-Za-z_]\w*", path.read_text("utf-8", "replace"))}
