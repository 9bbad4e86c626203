"""The command line in a form that Hydra reads as meant: text stays text, and GROUP=null means none."""

import re
import shlex
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, Quote, QuotedString
from hydra.errors import HydraException

from golden_noise.cli.conf import CONF, choices, is_group
from golden_noise.errors import UserError, one_line

ARGUMENT = re.compile(r"(?P<prefix>\+{0,2})(?P<key>[^=~+\s]+)=(?P<value>.*)", re.DOTALL)
QUOTED = re.compile(r"""(["'])(?:(?!\1)[^\\]|\\.)*\1""", re.DOTALL)  # one string in quotation marks, from end to end
#: Settings that are any text, `${...}` included.
PROSE = ("prompt", "pipeline.negative_prompt", "metric.*.prefix", "metric.*.condition")
#: Settings that are names or paths, as patterns.
NAMES = (
    *("name", "folder", "*.folder", "data_dir", "*.data_dir", "npnet", "paths.*", "pipeline.name"),
    *("noise_file", "pipeline.model.config", "*.cache", "*.dirpath", "*.path", "*.save_dir"),
    *("hydra.run.dir", "hydra.sweep.dir"),
    *("*.revision", "*.source", "*.weight_name", "*.weights", "metric.*.model", "metric.*.tokenizer"),
    *("evaluation.checkpoints.*", "evaluation.images.*"),
    *(f"logger.*.{part}" for part in ("name", "project", "group", "entity", "id", "notes")),
    *("logger.*.experiment_name", "logger.*.run_name", "logger.*.tracking_uri"),
)


def prepare(overrides: Sequence[str], multirun: bool = False) -> list[str]:
    """Quote overrides for Hydra; refuse what is not KEY=VALUE or has two meanings.

    - Names, paths and prompts are quoted, so that `name=1e5` or a comma keeps its meaning; so is whatever Hydra cannot
      read. In a multirun commas separate jobs, and only what has no other meaning is quoted.
    - `GROUP=null` becomes Hydra's own form, `GROUP=[]`.
    """
    without_folder = "local=null" if not (CONF / "local").is_dir() else None  # nothing to leave out
    return [_prepared(override, multirun) for override in overrides if override != without_folder]


def _prepared(override: str, multirun: bool) -> str:
    seen = override.encode(errors="backslashreplace").decode()
    if seen != override:  # Python keeps bytes that are no UTF-8 as halves of characters
        raise UserError(f"the command line is not UTF-8: {one_line(seen)}")
    match = ARGUMENT.fullmatch(override)
    if match is None:
        if override.startswith("=") or parsed(override) is None:
            raise UserError(f"{override!r} is not a setting: give KEY=VALUE, and quote text that has spaces")
        return override
    key, value = match["key"], match["value"]
    if key == "name" and (".." in Path(value).parts or Path(value).is_absolute()):
        raise UserError(f"name={value} must be a name: hydra.run.dir=FOLDER takes any folder")
    if key in ("name", "paths", "paths.outputs") and value.lower() == "null":
        raise UserError(f"{key}=null must be {'settings' if key == 'paths' else 'text'}: leave it out for the default")
    if key.startswith("hydra.") and value.startswith("~"):
        value = str(Path(value).expanduser())
    if any(fnmatchcase(key, pattern) for pattern in PROSE):
        value = value if multirun or value == "null" else quoted(value)
    elif is_group(key):
        if value.startswith("_"):
            raise UserError(f"{key}={value} is none of the choices: {', '.join(choices(key.partition('@')[0]))}")
        value = "[]" if value == "null" else _text(key, value, multirun, str, list)
    elif any(fnmatchcase(key, pattern) for pattern in NAMES):
        value = value if value.lower() == "null" else _text(key, value, multirun, str)
    elif parsed(f"x={value}") is None:
        value = _text(key, value, multirun)
    return f"{match['prefix']}{key}={value}"


def quoted(text: str, interpolate: bool = False) -> str:
    """Text as one value of Hydra's command line; `interpolate` leaves `${...}` to OmegaConf."""
    if QUOTED.fullmatch(text):
        return text
    return QuotedString(text if interpolate else _literal(text), Quote.double).with_quotes()


def spelled(text: str) -> str:
    """Text as the value of one of PROSE on the command line: quoted only where it would be read as something else."""
    if text != "null" and not QUOTED.fullmatch(text):
        return text
    return QuotedString(_literal(text), Quote.double).with_quotes()


def _literal(text: str) -> str:
    """Text in which OmegaConf finds no `${...}`; backslashes in front of one mean themselves."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def _text(key: str, value: str, multirun: bool, *types: type) -> str:
    """A value that Hydra reads as one of `types`, else as text."""
    override = parsed(f"x={value}")
    if override is None:
        if multirun and "," in value:
            line = shlex.quote(f"{key}={quoted(value)}")
            raise UserError(f"{key}={value}: Hydra cannot read the value; write one text as {line}")
        return quoted(value, interpolate=True)
    element = override.value()
    if multirun and isinstance(element, ChoiceSweep):
        return _texts_of_sweep(value, element)
    return value if isinstance(element, types) or (multirun and override.is_sweep_override()) else quoted(value, True)


def _texts_of_sweep(value: str, sweep: ChoiceSweep) -> str:
    """The texts of several jobs, of which those that look like a number are quoted."""
    parts = value.split(",")
    if not sweep.simple_form or len(parts) != len(sweep.list):
        return value
    pairs = zip(parts, sweep.list, strict=True)
    return ",".join(quoted(part.strip()) if isinstance(value, int | float) else part for part, value in pairs)


def parsed(override: str) -> Override | None:
    """An override as Hydra reads it; None if it cannot."""
    try:
        return OverridesParser.create().parse_override(override)
    except HydraException:
        return None
