"""Turns the config that Hydra composes into the one that a job gets."""

import re
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict

from golden_noise.cli import resolvers  # noqa: F401 the config files ask for them
from golden_noise.cli.arguments import prepare
from golden_noise.cli.conf import CONF, choices, groups, is_group
from golden_noise.cli.schema import JOBS, reads
from golden_noise.errors import UserError

#: Paths that nothing else expands, so that `~/pairs` would be a folder called `~`; the first is part of the others.
PATHS = ("paths.outputs", "data_dir", "folder", "data.cache", "model.npnet.pretrained")
KEY = re.compile(r"[+~]*(\w+)[^=]*")  # the first word of an override


def job_config(job: str, overrides: Sequence[str] = ()) -> DictConfig:
    """The config that `python JOB.py OVERRIDES` gives its job, for use outside of the command line."""
    refuse_others(job, overrides)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return complete(compose(job, prepare(overrides)), overrides)


def complete(config: DictConfig, given: Sequence[str]) -> DictConfig:
    """Remove what only other jobs read, add empty groups, expand `~` in paths, and refuse a missing group.

    Args:
        given: the command line's overrides.
    """
    fields = JOBS[config.job].model_fields
    leave_out_others(config)
    with open_dict(config):
        if config.job == "generate" and not _chose_prompts(config, given):
            config.pop("prompts", None)
        raw: Any = OmegaConf.to_container(config, resolve=False)
        for name, field in fields.items():
            if raw.get(name) is None and field.default == {}:
                config[name] = {}
            if (name not in raw or f"{name}=[]" in given) and field.is_required():
                raise UserError(f"{name} is missing: {config.job} needs it{_choices(name)}")
            if name in raw and (CONF / name).is_dir() and not isinstance(raw[name], dict | None):
                raise UserError(f"{name}={raw[name]} must hold settings{_choices(name)}")
    if OmegaConf.select(config, "collection.select_by") == "auto":
        if not config.metric:
            raise UserError("collection.select_by=auto needs a metric: metric=NAME, or collection.select_by=null")
        config.collection.select_by = next(iter(config.metric))
    for key in PATHS:
        value = OmegaConf.select(config, key, throw_on_resolution_failure=False)
        if isinstance(value, str) and value.startswith("~"):
            OmegaConf.update(config, key, str(Path(value).expanduser()))
    return config


def leave_out_others(config: DictConfig) -> None:
    """Remove what the job does not read."""
    with open_dict(config):
        for name in [str(name) for name in config]:
            if not reads(config.job, name):
                del config[name]


def refuse_others(job: str, given: Sequence[str]) -> None:
    """Refuse a command line that sets what only other jobs read."""
    for override in given:
        match = KEY.match(override)
        if match and not reads(job, match[1]) and not override.endswith("=[]"):
            others = ", ".join(name for name in JOBS if match[1] in JOBS[name].model_fields)
            raise UserError(f"{override}: {job} does not read {match[1]}, only {others}")


def _choices(name: str) -> str:
    return f": choose one of {', '.join(choices(name))}" if (CONF / name).is_dir() else ""


def _chose_prompts(config: DictConfig, given: Sequence[str]) -> bool:
    """Whether generate draws a set of prompts; `prompt=` replaces that of a preset."""
    if any(re.match(r"\+*prompts[=.]", override) for override in given):
        return True
    return config.prompt is None and "_target_" in (config.get("prompts") or {})


def suggestion(key: str, job: str, given: Sequence[str]) -> str:
    """The known setting nearest to a misspelt one, if any: `: did you mean seed?`"""
    if key == "name":
        return f": {job} takes data_dir=FOLDER instead"
    if not (settings := settings_of_choices(job, given)):
        return ""
    known = list(dict.fromkeys([*groups(job), *_keys(settings)]))
    parent, _, leaf = key.rpartition(".")
    same_leaf = sorted((name for name in known if name.rpartition(".")[2] == leaf), key=lambda name: name.count("."))
    near = same_leaf[:2]  # steps: pipeline.steps or search.steps
    if not near and parent in known:
        beside = [name.rpartition(".")[2] for name in known if name.rpartition(".")[0] == parent]
        near = [f"{parent}.{name}" for name in get_close_matches(leaf, beside, n=1)]
    elif not near:
        near = get_close_matches(key, known, n=1)
    return f": did you mean {' or '.join(near)}?" if near else ""


def settings_of_choices(job: str, given: Sequence[str]) -> dict[str, Any]:
    """What the overrides that choose groups give by themselves, with interpolations as they are written.

    Nothing in a multirun, where choices are lists.
    """
    chosen = [text for text in given if is_group(text.partition("=")[0])]
    local = ["local=[]"] if (CONF / "local").is_dir() else []
    try:
        started = GlobalHydra.instance().is_initialized()
        with nullcontext() if started else initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose(job, [*chosen, *local])
    except HydraException:
        return {}
    leave_out_others(config)
    settings: Any = OmegaConf.to_container(config, resolve=False)
    return settings


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    for key, value in node.items() if isinstance(node, dict) else ():
        yield f"{prefix}{key}"
        yield from _keys(value, f"{prefix}{key}.")
