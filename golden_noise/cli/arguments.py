"""The command line as Hydra is to read it: text stays text, GROUP=null means none, and mistakes are named."""

import re
import shlex
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from golden_noise.cli.conf import CONF
from golden_noise.cli.validation import TEXT
from golden_noise.errors import UserError

ARGUMENT = re.compile(r"(?P<prefix>\+{0,2})(?P<key>[^=~+\s]+)=(?P<value>.*)", re.DOTALL)
QUOTED = re.compile(r"""(["'])(?:(?!\1)[^\\]|\\.)*\1""", re.DOTALL)  # one string in quotation marks, from end to end
#: Settings that are any text, `${...}` included.
PROSE = ("prompt", "pipeline.negative_prompt", "metric.*.prefix", "metric.*.condition")
#: Settings that are names or paths (as patterns), beside those that every job checks to be one.
NAMES = (
    *TEXT,
    "paths.*",
    "hydra.run.dir",
    "hydra.sweep.dir",
    "*.path",
    "*.source",
    "*.weights",
    "*.weight_name",
    "*.revision",
    "*.cache",
    "*.dirpath",
    "*.save_dir",
    "data.data_dir",
    "metric.*.model",
    "metric.*.tokenizer",
    "evaluation.folder",
    "evaluation.images.*",
    "evaluation.checkpoints.*",
    *(f"logger.wandb.{part}" for part in ("name", "project", "group", "entity", "id", "notes")),
)
#: Groups of which a job may have none.
MAY_BE_EMPTY = ("logger", "callbacks", "metric", "debug", "experiment", "hparams_search", "local")


def prepare(arguments: list[str], job: str) -> list[str]:
    """The arguments of a job's command line, as they are to be given to Hydra.

    - A setting that is a name, a path or a prompt is quoted, so that `name=1e5` or a comma in it is no part of Hydra's
      grammar. In a multirun, commas separate jobs; only what has no other meaning is quoted there.
    - `GROUP=null` becomes Hydra's own form, `GROUP=[]`.

    Raises:
        UserError: Hydra could not read an argument, or the job cannot do without that group.
    """
    given = get_args_parser().parse_args(arguments)
    prepared = (_prepared(a, job, given.multirun) if a in given.overrides else [a] for a in arguments)
    return list(chain.from_iterable(prepared))


def _prepared(argument: str, job: str, multirun: bool) -> list[str]:
    match = ARGUMENT.fullmatch(argument)
    if match is None:
        _check_grammar(argument)
        return [argument]
    prefix, key, value = match["prefix"], match["key"], match["value"]
    if key == "name" and (".." in Path(value).parts or Path(value).is_absolute()):
        raise UserError(f"name={value} must be a name: hydra.run.dir=FOLDER takes any folder")
    if is_group(key):
        return _group_choice(argument, key, value, job)
    if key.startswith("hydra.") and value.startswith("~"):
        value = str(Path(value).expanduser())
    if any(fnmatchcase(key, pattern) for pattern in PROSE):
        value = value if multirun or value == "null" else quoted(value)
    elif any(fnmatchcase(key, pattern) for pattern in NAMES):
        value = _name(value, multirun)
    _check_grammar(argument := f"{prefix}{key}={value}")
    return [argument]


def quoted(text: str, interpolate: bool = False) -> str:
    """A text as one value of Hydra's command line, unless it is quoted already.

    Args:
        interpolate: leave `${...}` for OmegaConf to look up.
    """
    if QUOTED.fullmatch(text):
        return text
    return QuotedString(text if interpolate else text.replace("${", r"\${"), Quote.double).with_quotes()


def is_group(key: str) -> bool:
    """Whether a key chooses a file of a config group, such as `logger` or `prompts@evaluation.prompts`."""
    return key == "local" or (key.isascii() and "." not in key.partition("@")[0] and (CONF / _group(key)).is_dir())


def groups(job: str) -> dict[str, Any]:
    """The groups of a job with their default choices."""
    defaults = (entry for entry in OmegaConf.load(CONF / f"{job}.yaml").defaults if isinstance(entry, DictConfig))
    return {str(name).removeprefix("optional "): choice for entry in defaults for name, choice in entry.items()}


def _group(key: str) -> str:
    return key.partition("@")[0]


def _name(value: str, multirun: bool) -> str:
    """A name or path as Hydra's grammar wants it."""
    if value.lower() == "null" or QUOTED.fullmatch(value):
        return value
    found = _parsed(f"x={value}")
    if found is None:
        return value if multirun and "," in value else quoted(value, interpolate=True)
    element = found.value()
    if isinstance(element, ChoiceSweep) and multirun:
        return _names_of_sweep(value, element)
    if isinstance(element, str) or (multirun and found.is_sweep_override()):
        return value
    return quoted(value, interpolate=True)


def _names_of_sweep(value: str, sweep: ChoiceSweep) -> str:
    """The names of several jobs, of which those that look like a number are quoted."""
    parts = value.split(",")
    if not sweep.simple_form or len(parts) != len(sweep.list):
        return value
    numbers = (bool, int, float)
    pairs = zip(parts, sweep.list, strict=True)
    return ",".join(quoted(part.strip()) if isinstance(element, numbers) else part for part, element in pairs)


def _group_choice(argument: str, key: str, value: str, job: str) -> list[str]:
    group, known = _group(key), groups(job)
    element: Any = found.value() if (found := _parsed(f"x={value}")) else value
    several = element.list if isinstance(element, ChoiceSweep) else []
    odd = next((e for e in [element, *several] if e is None or isinstance(e, (bool, int, float))), "")
    if odd == "":
        _check_grammar(argument)
        return [argument]
    folder = CONF / group
    choices = ", ".join(sorted(path.stem for path in folder.iterdir())) if folder.is_dir() else "default"
    if odd is not None or several:
        raise UserError(f"{argument}: {'null' if odd is None else odd} is no choice of {group}: {choices}")
    if key not in known:
        raise UserError(f"{argument}: {job}.py has no group {key}; --help lists all")
    if group not in MAY_BE_EMPTY and known[key] is not None:
        raise UserError(f"{argument}: {job}.py cannot do without: choose one of {choices}")
    if group == "local" and not folder.is_dir():
        return []
    return [f"{key}=[]"]


def _parsed(argument: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException:
        return None


def _check_grammar(argument: str) -> None:
    """Name an argument that Hydra cannot read; its own messages show a column at most."""
    key, equals, value = argument.partition("=")
    if key and _parsed(argument):
        return
    if not equals or not key or re.search(r"\s", key):
        raise UserError(f"{argument!r} is no setting: give KEY=VALUE, a text with blanks in quotation marks")
    line = shlex.quote(f"{key}={quoted(value)}")
    raise UserError(f"{argument}: Hydra cannot read the value: as text it is written {line}")
