"""What the entry points share: compose the config, run the job, and turn mistakes into one line."""

import errno
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from golden_noise.config import check
from golden_noise.errors import UserError

CONF = Path(__file__).parents[1] / "conf"


def run(job: Callable[[DictConfig], object], config_name: str) -> None:
    """Run a job with `conf/CONFIG_NAME.yaml` and the command line's overrides.

    A mistake becomes one line on stderr and exit code 2; in a multirun the other jobs still run.
    With HYDRA_FULL_ERROR=1 it is raised with its traceback instead.
    """
    show_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints its own many lines and hides the exception
    failed = False

    def guarded(function: Callable, *args: object) -> None:
        nonlocal failed
        try:
            function(*args)
        except KeyboardInterrupt:
            sys.exit("interrupted: run the same command again to go on")
        except Exception as error:
            mistake = _mistake(error)
            if mistake is None or show_traceback:
                raise
            print(f"error: {mistake}", file=sys.stderr)
            failed = True

    def checked_job(config: DictConfig) -> None:
        check(config)
        job(config)

    def task(config: DictConfig) -> None:
        guarded(checked_job, config)

    guarded(hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(task))
    if failed:
        sys.exit(2)


def _mistake(error: Exception) -> str | None:
    """The user's mistake behind an exception in one line, or None if it is not known to be one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return str(cause)
        cause = cause.__cause__
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        text = str(error).split("Config search path")[0].split("full_key")[0]
        return re.sub(r"\s*\n\s*", " ", text).strip()
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.strerror}: {error.filename}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):  # these often come without a name
        return f"{error.strerror}: free some space or choose another folder with paths.outputs=FOLDER"
    return None
