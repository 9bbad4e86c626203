"""The user's mistakes behind exceptions of libraries, in one line each."""

import errno
import os
import re
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence

from hydra.errors import HydraException, InstantiationException
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from golden_noise.cli.config import suggestion
from golden_noise.errors import UserError, one_line
from golden_noise.extras import lacking
from golden_noise.files import DISK_ERRORS

# What libraries in Rust and C++ say where Python raises an OSError and a MemoryError.
IN_RUST = re.compile(r"\(os error (\d+)\)")
NO_MEMORY = re.compile(
    "(can't|Cannot|not enough|unable to) (allocate )?(memory|mmap)|bad_alloc|can't start new thread"
    "|could not create a primitive$"  # oneDNN's, without room for its code
)


def describe(error: Exception, job: str, given: Sequence[str] = ()) -> str | None:
    """The user's mistake behind an exception in one line, or None if it is not known to be one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return str(cause)
        if type(cause).__name__ == "OutOfMemoryError":  # torch's, which is not imported here: --help stays quick
            reason = ". ".join(str(cause).split(". ")[:2])
            return (
                f"too little GPU memory ({reason}): take a smaller collection.batch_size, "
                "data.batch_size or evaluation.batch_size, or add pipeline.model.memory.offload=model, "
                "pipeline.model.memory.vae_slicing=true or pipeline.model.memory.vae_tiling=true"
            )
        if type(cause).__name__ == "MisconfigurationException":  # Lightning's word for settings that do not fit
            return one_line(cause, None)
        if isinstance(cause, ModuleNotFoundError) and (lacked := lacking(cause, job)):
            return lacked
        cause = cause.__cause__
    if what := _failure(error):
        return what
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        text = str(error).split("Config search path")[0].split("full_key")[0]
        text = text.removeprefix("UserError raised while resolving interpolation: ")
        if "Could not find 'hydra/sweeper/optuna'" in text:
            return "this search needs Optuna: pip install 'golden-noise[search]'"
        if unknown := re.match("Could not override '(.+)'", text):
            return f"no setting {unknown[1]}{suggestion(unknown[1], job, given)}; --help lists all"
        if missing := re.search("Missing mandatory value: (.+)", text):
            return f"{missing[1]} is missing: add {missing[1]}=VALUE; --help says what it is"
        if wrong := re.search(r"Could not find '(\w+)/(.+)'\n\nAvailable options in .+:\n", text):
            names = [name for name in text[wrong.end() :].split() if not name.startswith("_")]
            return f"{wrong[1]}={wrong[2]} is none of the choices: {', '.join(names)}"
        key = re.search(r"full_key: (\S+)", str(error)) if isinstance(error, InstantiationException) else None
        return (f"{key[1]}: " if key else "") + (one_line(text, None) or one_line(error.__cause__, None))
    if isinstance(error, ValueError) and _raised_in(error) in ("lightning", "optuna"):
        return one_line(error, None)
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return f"{mark.name}, line {mark.line + 1}: {error.problem or 'this is not YAML'}"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.strerror}: {error.filename}"
    return None


def run_command(parser: ArgumentParser, arguments: Sequence[str] | None) -> None:
    """Call the `run` of a tool's chosen command; a mistake is one line on stderr and exit code 2."""
    options = parser.parse_args(arguments)
    try:
        options.run(options)
        return
    except UserError as error:
        mistake = str(error)
    except OSError as error:
        mistake = f"{error.strerror or error}: {error.filename}"
    print(f"error: {mistake}", file=sys.stderr)
    sys.exit(2)


def _failure(error: Exception) -> str | None:
    """What the machine lacks, if an error comes from that, however many errors of libraries are around it."""
    chain = list(_chain(error))
    for each in chain:
        if (number := _number(each)) in DISK_ERRORS:
            where = f": {name}" if (name := getattr(each, "filename", None)) else ""
            mend = "free some space" if number in (errno.ENOSPC, errno.EDQUOT) else "mend the disk"
            return (
                f"{os.strerror(number)}{where}: {mend} and rerun the same command, or choose another folder with "
                "paths.outputs=FOLDER"
            )
    for each in reversed(chain):
        if isinstance(each, MemoryError) or _number(each) == errno.ENOMEM or NO_MEMORY.search(str(each)):
            return (
                f"too little memory ({one_line(each, 100) or 'MemoryError'}): close other programs and rerun the same "
                "command, or take a smaller collection.batch_size, data.batch_size or evaluation.batch_size"
            )
    return None


def _number(error: BaseException) -> int:
    """The number of an error of the system, also in the words of safetensors; 0: it is none."""
    if isinstance(error, OSError):
        return error.errno or 0
    return int(match[1]) if (match := IN_RUST.search(str(error))) else 0


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _raised_in(error: Exception) -> str:
    """The package whose code raised an error."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return trace.tb_frame.f_globals["__name__"].partition(".")[0] if trace else ""
