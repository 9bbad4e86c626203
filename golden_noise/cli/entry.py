"""The entry points' shared part: compose the config, run the job, and report a mistake in one line."""

import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from tqdm import tqdm

from golden_noise.cli.arguments import prepare
from golden_noise.cli.config import complete, leave_out_others, refuse_others
from golden_noise.cli.help import job_help
from golden_noise.cli.hydra_app import App, parser
from golden_noise.cli.mistakes import describe
from golden_noise.cli.run_folder import SETTINGS, Watch, write_settings
from golden_noise.cli.run_log import LOG, RunLog
from golden_noise.cli.validation import check
from golden_noise.errors import UserError
from golden_noise.invocation import arguments, share_cores, words
from golden_noise.sharing.processes import is_first, started_several_times

AFTER_SWEEP: list[Callable[[], object]] = []  # called when a launcher's sweep has ended, well or not


def run(job: Callable[[DictConfig], object], config_name: str) -> None:
    """Run a job with `conf/CONFIG_NAME.yaml` and the command line's overrides.

    A mistake becomes one line on stderr and exit code 2.
    With HYDRA_FULL_ERROR=1 it is raised with its traceback instead.
    """
    share_cores()
    command = Command(job, config_name)
    command.guarded(command.main)
    for step in AFTER_SWEEP:
        command.guarded(step)
    if command.failed:
        sys.exit(2)


class Command:
    """A job's command line."""

    def __init__(self, job: Callable[[DictConfig], object], name: str):
        self.job, self.name = job, name
        self.args = parser().parse_intermixed_args(arguments())  # options may stand between settings
        self.failed = False

    def guarded(self, function: Callable, *arguments: object) -> None:
        """Call a function; say what is the user's mistake, and raise what is not."""
        try:
            function(*arguments)
        except Exception as error:
            mistake = describe(error, self.name, self.args.overrides)
            if mistake is None or os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            tqdm.write(f"error: {mistake}", file=sys.stderr)  # on a line of its own, below a progress bar
            self.failed = True

    def main(self) -> None:
        """Show what an option asks for, or let Hydra run the job or the jobs."""
        args = self.args
        refuse_others(self.name, args.overrides)
        args.overrides = prepare(args.overrides, args.multirun)
        with App(self.name, args) as app:
            if args.help or args.cfg or args.hydra_help or args.info or args.shell_completion:
                signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `--help | head` ends without a traceback
                show(app, self.job)
            else:
                app.run(self.task)

    def task(self, config: DictConfig) -> None:
        """What Hydra calls with the config of a job."""
        try:
            self.guarded(self.run_checked, config)
        except (KeyboardInterrupt, SystemExit) as end:
            stopped = isinstance(end, SystemExit) and end.code == 128 + signal.SIGTERM
            if not (stopped or isinstance(end, KeyboardInterrupt) or isinstance(end.__context__, KeyboardInterrupt)):
                raise  # no Ctrl-C, of which Lightning makes a SystemExit
            if is_first():
                again = f" with name={config.name}" if "name" in config else ""
                print(f"interrupted: resume by rerunning the same command{again}", file=sys.stderr)
            sys.exit(128 + signal.SIGTERM if stopped else 1)
        except Exception:
            Watch.folder = None  # a bug: the files may explain it
            raise
        finally:
            if Watch.folder:
                Watch.folder.tidy()

    def run_checked(self, config: DictConfig) -> None:
        """Check the config, and run the job."""
        complete(config, list(HydraConfig.get().overrides.task))
        check(config)
        check_launcher(config)
        check_search()
        advise(config)
        begin(config)
        self.job(config)
        if "folder" in config and is_first():  # not before: a refused job must not replace an older run's settings
            write_settings(config, Path(HydraConfig.get().runtime.output_dir))


def show(app: App, job: Callable) -> None:
    """Show what an option such as `--help` requests."""
    if not app.args.help and (app.args.cfg != "job" or app.args.package):
        return app.show()
    config = app.compose()
    leave_out_others(config)
    if app.args.help:
        print(job_help(job, config))
    else:
        with open_dict(config):
            config.pop("hydra")
        print(OmegaConf.to_yaml(config, resolve=app.args.resolve), end="")


def advise(config: DictConfig) -> None:
    """Warn that the paper's recipe takes long on the miniature, and name the quick one."""
    recipe = HydraConfig.get().runtime.choices.get("recipe")
    if config.job == "train" and config.pipeline.bundled and recipe == "published" and is_first():
        note = "note: the paper's network and recipe take hours on a CPU; experiment=shapes trains in minutes"
        print(note, file=sys.stderr)


def check_launcher(config: DictConfig) -> None:
    """Refuse several ranks under another launcher: it runs the job in this process, so each would run the sweep."""
    hydra = HydraConfig.get()
    devices = OmegaConf.select(config, "trainer.devices", default=1)
    if hydra.mode == RunMode.MULTIRUN and not started_several_times() and str(devices) != "1":
        launcher = hydra.runtime.choices["hydra/launcher"]
        raise UserError(f"trainer.devices={devices} needs hydra/launcher=process, not {launcher}")


def check_search() -> None:
    """Refuse a search for settings that would be one plain run; the runs of a search have their folders given."""
    hydra = HydraConfig.get()
    preset, given = hydra.runtime.choices.get("hparams_search"), hydra.overrides.hydra
    if preset and hydra.mode == RunMode.RUN and not any(text.startswith("hydra.run.dir=") for text in given):
        raise UserError(f"hparams_search={preset} is a search, which needs -m: {shlex.join(words())} -m ...")


def begin(config: DictConfig) -> None:
    """Write the checked settings of a job into its folder, and begin its log."""
    if not is_first():
        return
    if "folder" in config:
        if Watch.folder:
            Watch.folder.use()
        output = Path(HydraConfig.get().runtime.output_dir)
        if not (output / SETTINGS).exists():
            write_settings(config, output)
        RunLog(Path(config.folder) / LOG, begins_with=Path(config.folder)).start()
    else:  # a collection's folder is its own once it has an index
        RunLog(Path(config.data_dir) / LOG, begins_with=Path(config.data_dir) / "index.json").start()
