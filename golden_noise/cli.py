"""What the entry points share: compose the config, run the job, and turn mistakes into one line."""

import contextlib
import errno
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from golden_noise.config import check
from golden_noise.errors import UserError
from golden_noise.experiments import sweep
from golden_noise.help import CONF, TRAIN

SHOWING = ("--help", "-h", "--cfg", "-c", "--info", "-i", "--hydra-help")  # no job runs
QUOTED = re.compile(r"""(["'])(?:(?!\1)[^\\]|\\.)*\1""")  # one string in quotation marks, from end to end


def run(job: Callable[[DictConfig], object], config_name: str) -> None:
    """Run a job with `conf/CONFIG_NAME.yaml` and the command line's overrides.

    A mistake becomes one line on stderr and exit code 2; in a multirun, whose jobs are processes of their own, the
    other jobs still run.
    With HYDRA_FULL_ERROR=1 it is raised with its traceback instead.
    """
    sys.argv[1:] = quote_prompt(sys.argv[1:])
    if any(argument.split("=")[0] in SHOWING for argument in sys.argv[1:]):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `--help | head` ends without a traceback
    show_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints its own many lines and hides the exception
    failed = False

    def guarded(function: Callable, *args: object) -> None:
        nonlocal failed
        try:
            function(*args)
        except Exception as error:
            mistake = _mistake(error, config_name)
            if mistake is None or show_traceback:
                raise
            print(f"error: {mistake}", file=sys.stderr)
            failed = True

    def checked_job(config: DictConfig) -> None:
        drop_network(config)
        check(config)
        job(config)

    sweep_folder: list[Path] = []

    def task(config: DictConfig) -> None:
        if not show_traceback:
            del os.environ["HYDRA_FULL_ERROR"]  # not meant for the processes that a job starts
        try:
            if sweep.is_sweep():
                sweep_folder[:] = [sweep.folder()]
                guarded(sweep.run_job, config)
            else:
                guarded(checked_job, config)
        except KeyboardInterrupt:
            again = f"with name={config.name} " if "name" in config and not sweep_folder else ""
            sys.exit(f"interrupted: run the same command again {again}to go on")
        finally:
            os.environ["HYDRA_FULL_ERROR"] = "1"
            _remove_if_empty(Path(HydraConfig.get().runtime.output_dir))

    guarded(hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(task))
    if sweep_folder:
        guarded(sweep.finish, *sweep_folder)
    if failed:
        sys.exit(2)


def drop_network(config: DictConfig) -> None:
    """Takes the network to train out of jobs that train none: it may be a pipeline's or a preset's choice.

    Raises:
        UserError: the command line chose it.
    """
    if config.job == TRAIN:
        return
    for override in HydraConfig.get().overrides.task:
        if override.lstrip("+~").startswith(("model=", "model.", "model@")):
            raise UserError(f"{override}: only train.py trains a network; npnet= names a trained one to use")
    with open_dict(config):
        config.pop("model", None)


def quote_prompt(arguments: list[str]) -> list[str]:
    """Quotes the text of `prompt=TEXT`, so that commas, brackets and the like in it are no part of Hydra's grammar.

    What is quoted already stays as it is, and so does everything in a multirun, whose commas separate jobs.
    """
    if {"-m", "--multirun"} & {*arguments}:
        return arguments
    name = "prompt="
    return [name + _quoted(a.removeprefix(name)) if a.startswith(name) else a for a in arguments]


def _quoted(text: str) -> str:
    if QUOTED.fullmatch(text):
        return text
    return QuotedString(text.replace("${", r"\${"), Quote.double).with_quotes()  # OmegaConf would look up ${...}


def _remove_if_empty(folder: Path) -> None:
    """Remove the run folder of a job that left nothing there but its config."""
    try:
        left = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    except FileNotFoundError:
        return  # another process of this job is removing it
    if all(path.parts[0] == ".hydra" or path.name == "config.yaml" for path in left) and folder != Path.cwd():
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # it holds other runs, or another process of this one was faster
            folder.parent.rmdir()


def _mistake(error: Exception, config_name: str) -> str | None:
    """The user's mistake behind an exception in one line, or None if it is not known to be one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return str(cause)
        if type(cause).__name__ == "OutOfMemoryError":  # torch's, which this module does without: --help is quick
            reason = ". ".join(str(cause).split(". ")[:2])
            return (
                f"too little GPU memory ({reason}): take a smaller collection.batch_size, "
                "data.batch_size or evaluation.batch_size, or add pipeline.model.memory.offload=model, "
                "pipeline.model.memory.vae_slicing=true or pipeline.model.memory.vae_tiling=true"
            )
        cause = cause.__cause__
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        text = str(error).split("Config search path")[0].split("full_key")[0]
        if unknown := re.match("Could not override '(.+)'", text):
            return f"no setting {unknown[1]}{_suggestion(unknown[1], config_name)}; --help lists all"
        if missing := re.search("Missing mandatory value: (.+)", text):
            return f"{missing[1]} is missing: add {missing[1]}=VALUE; --help says what it is"
        return re.sub(r"\s*\n\s*", " ", text).strip()
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.strerror}: {error.filename}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):  # these often come without a name
        return f"{error.strerror}: free some space or choose another folder with paths.outputs=FOLDER"
    return None


def _suggestion(key: str, config_name: str) -> str:
    """The known setting that a misspelt one was meant to be, if one is near: `: did you mean seed?`"""
    choices = [a for a in sys.argv[1:] if (CONF / a.partition("=")[0]).is_dir() and not a.startswith(("-", "+", "~"))]
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            known = list(_keys(OmegaConf.to_container(compose(config_name, choices), resolve=False)))
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
