"""What the entry points share: compose the config, run the job, and turn mistakes into one line."""

import errno
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from golden_noise.cli.arguments import prepare
from golden_noise.cli.completion import complete, suggestion
from golden_noise.cli.conf import CONF
from golden_noise.cli.run_folder import SETTINGS, Watch, write_settings
from golden_noise.cli.run_log import LOG, RunLog
from golden_noise.cli.validation import check
from golden_noise.errors import UserError
from golden_noise.sharing.processes import is_first, started_several_times

ENVIRONMENT = dict(os.environ)  # as it was given, for the jobs of a sweep
AFTER_SWEEP: list[Callable[[], object]] = []  # what a launcher wants done when its sweep has ended, well or not
SHOWING = ("--help", "-h", "--cfg", "-c", "--info", "-i", "--hydra-help")  # no job runs


def run(job: Callable[[DictConfig], object], config_name: str) -> None:
    """Run a job with `conf/CONFIG_NAME.yaml` and the command line's overrides.

    A mistake becomes one line on stderr and exit code 2.
    With HYDRA_FULL_ERROR=1 it is raised with its traceback instead.
    """
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
        complete(config)
        check(config)
        check_launcher(config)
        begin(config)
        job(config)
        if "folder" in config and is_first():  # not before: what is refused leaves those of the run that is there
            write_settings(config, Path(HydraConfig.get().runtime.output_dir))

    def task(config: DictConfig) -> None:
        if not show_traceback:
            del os.environ["HYDRA_FULL_ERROR"]  # not meant for the processes that a job starts
        try:
            guarded(checked_job, config)
        except (KeyboardInterrupt, SystemExit) as end:
            stopped = isinstance(end, SystemExit) and end.code == 128 + signal.SIGTERM
            if not (stopped or isinstance(end, KeyboardInterrupt) or isinstance(end.__context__, KeyboardInterrupt)):
                raise  # no Ctrl-C, of which Lightning makes a SystemExit
            again = f"with name={config.name} " if "name" in config else ""
            print(f"interrupted: run the same command again {again}to go on", file=sys.stderr)
            sys.exit(128 + signal.SIGTERM if stopped else 1)
        except Exception:
            Watch.found = None  # a fault of ours: what is there may explain it
            raise
        finally:
            os.environ["HYDRA_FULL_ERROR"] = "1"
            if Watch.found:
                Watch.found.tidy()

    def main() -> None:
        sys.argv[1:] = prepare(sys.argv[1:], config_name)
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(task)()

    guarded(main)
    for step in AFTER_SWEEP:
        guarded(step)
    if failed:
        sys.exit(2)


def check_launcher(config: DictConfig) -> None:
    """Another launcher than ours runs the job here, where Lightning's ranks would each run the whole sweep.

    Raises:
        UserError: there would be several.
    """
    hydra = HydraConfig.get()
    devices = OmegaConf.select(config, "trainer.devices", default=1)
    if hydra.mode == RunMode.MULTIRUN and not started_several_times() and str(devices) != "1":
        launcher = hydra.runtime.choices["hydra/launcher"]
        raise UserError(f"trainer.devices={devices} needs hydra/launcher=process, not {launcher}")


def begin(config: DictConfig) -> None:
    """Write the settings of a job that was found to be right into its folder, and begin its log."""
    if not is_first():
        return
    if "folder" in config:
        if Watch.found:
            Watch.found.use()
        if not (place := Path(HydraConfig.get().runtime.output_dir) / SETTINGS).exists():
            write_settings(config, place.parent)
        RunLog(Path(config.folder) / LOG, begins_with=Path(config.folder)).start()
    else:  # a collection's folder is its own once it has an index
        RunLog(Path(config.data_dir) / LOG, begins_with=Path(config.data_dir) / "index.json").start()


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
        if type(cause).__name__ == "MisconfigurationException":  # Lightning's word for settings that do not fit
            return _one_line(str(cause))
        cause = cause.__cause__
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        text = str(error).split("Config search path")[0].split("full_key")[0]
        if "Could not find 'hydra/sweeper/optuna'" in text:
            return "this search needs Optuna: pip install 'golden_noise[search]'"
        if unknown := re.match("Could not override '(.+)'", text):
            return f"no setting {unknown[1]}{suggestion(unknown[1], config_name)}; --help lists all"
        if missing := re.search("Missing mandatory value: (.+)", text):
            return f"{missing[1]} is missing: add {missing[1]}=VALUE; --help says what it is"
        return _one_line(text) or _one_line(str(error.__cause__))
    if isinstance(error, ValueError) and _raised_in(error) in ("lightning", "optuna"):
        return _one_line(str(error))
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return f"{mark.name}, line {mark.line + 1}: {error.problem or 'this is no YAML'}"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.strerror}: {error.filename}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):  # these often come without a name
        return f"{error.strerror}: free some space or choose another folder with paths.outputs=FOLDER"
    return None


def _raised_in(error: Exception) -> str:
    """The package whose code raised an error."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return trace.tb_frame.f_globals["__name__"].partition(".")[0] if trace else ""


def _one_line(text: str) -> str:
    return re.sub(r"\s*\n\s*", " ", text).strip()
