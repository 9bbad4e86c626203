"""The command line as Hydra is to read it: text stays text, and GROUP=null means none."""

import re
import shlex
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, Quote, QuotedString
from hydra.errors import HydraException

from golden_noise.cli.conf import CONF, is_group
from golden_noise.errors import UserError

ARGUMENT = re.compile(r"(?P<prefix>\+{0,2})(?P<key>[^=~+\s]+)=(?P<value>.*)", re.DOTALL)
QUOTED = re.compile(r"""(["'])(?:(?!\1)[^\\]|\\.)*\1""", re.DOTALL)  # one string in quotation marks, from end to end
#: Settings that are any text, `${...}` included.
PROSE = ("prompt", "pipeline.negative_prompt", "metric.*.prefix", "metric.*.condition")
#: Settings that are names or paths, as patterns.
NAMES = (
    *("name", "folder", "*.folder", "data_dir", "*.data_dir", "npnet", "paths.*", "pipeline.name"),
    *("hydra.run.dir", "hydra.sweep.dir", "*.cache", "*.dirpath", "*.path", "*.save_dir"),
    *("*.revision", "*.source", "*.weight_name", "*.weights", "metric.*.model", "metric.*.tokenizer"),
    *("evaluation.checkpoints.*", "evaluation.images.*"),
    *(f"logger.wandb.{part}" for part in ("name", "project", "group", "entity", "id", "notes")),
)


def prepare(overrides: Sequence[str], multirun: bool = False) -> list[str]:
    """The overrides of a command line, as they are to be given to Hydra.

    - A name, a path or a prompt is quoted, so that `name=1e5` or a comma in it is no part of Hydra's grammar; so is
      whatever Hydra could not read. In a multirun commas separate jobs, and only what has no other meaning is quoted.
    - `GROUP=null` becomes Hydra's own form, `GROUP=[]`.

    Raises:
        UserError: one is no KEY=VALUE, or may be read in two ways.
    """
    without_folder = "local=null" if not (CONF / "local").is_dir() else None  # nothing to leave out
    return [_prepared(override, multirun) for override in overrides if override != without_folder]


def _prepared(override: str, multirun: bool) -> str:
    match = ARGUMENT.fullmatch(override)
    if match is None:
        if override.startswith("=") or _parsed(override) is None:
            raise UserError(f"{override!r} is no setting: give KEY=VALUE, a text with blanks in quotation marks")
        return override
    key, value = match["key"], match["value"]
    if key == "name" and (".." in Path(value).parts or Path(value).is_absolute()):
        raise UserError(f"name={value} must be a name: hydra.run.dir=FOLDER takes any folder")
    if key.startswith("hydra.") and value.startswith("~"):
        value = str(Path(value).expanduser())
    if any(fnmatchcase(key, pattern) for pattern in PROSE):
        value = value if multirun or value == "null" else quoted(value)
    elif is_group(key):
        value = "[]" if value == "null" else _text(key, value, multirun, str, list)
    elif any(fnmatchcase(key, pattern) for pattern in NAMES):
        value = value if value.lower() == "null" else _text(key, value, multirun, str)
    elif _parsed(f"x={value}") is None:
        value = _text(key, value, multirun)
    return f"{match['prefix']}{key}={value}"


def quoted(text: str, interpolate: bool = False) -> str:
    """A text as one value of Hydra's command line, unless it is quoted already.

    Args:
        interpolate: leave `${...}` for OmegaConf to look up.
    """
    if QUOTED.fullmatch(text):
        return text
    return QuotedString(text if interpolate else text.replace("${", r"\${"), Quote.double).with_quotes()


def _text(key: str, value: str, multirun: bool, *kinds: type) -> str:
    """A value as Hydra's grammar wants it, where it is to be of one of some types, and text if it is of another."""
    found = _parsed(f"x={value}")
    if found is None:
        if multirun and "," in value:
            line = shlex.quote(f"{key}={quoted(value)}")
            raise UserError(f"{key}={value}: Hydra cannot read the value: as one text it is written {line}")
        return quoted(value, interpolate=True)
    element = found.value()
    if multirun and isinstance(element, ChoiceSweep):
        return _texts_of_sweep(value, element)
    return value if isinstance(element, kinds) or (multirun and found.is_sweep_override()) else quoted(value, True)


def _texts_of_sweep(value: str, sweep: ChoiceSweep) -> str:
    """The texts of several jobs, of which those that look like a number are quoted."""
    parts = value.split(",")
    if not sweep.simple_form or len(parts) != len(sweep.list):
        return value
    numbers = (bool, int, float)
    pairs = zip(parts, sweep.list, strict=True)
    return ",".join(quoted(part.strip()) if isinstance(element, numbers) else part for part, element in pairs)


def _parsed(override: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(override)
    except HydraException:
        return None
