"""A run's folder: marked as in use, and removed again if nothing came of the run."""

import contextlib
import fcntl
import shutil
from pathlib import Path
from typing import Any, TextIO

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from golden_noise.cli.run_log import LOG
from golden_noise.files import write_atomically
from golden_noise.sharing.claims import is_lock, locked, try_lock
from golden_noise.sharing.processes import is_first

SETTINGS = ".hydra"
IN_USE = ".in-use"
BEGINNINGS = {SETTINGS, "config.yaml", LOG, IN_USE}  # what jobs write before they make anything


class RunFolder:
    """A folder as it was before this process began to use it."""

    def __init__(self, folder: Path):
        self.folder = folder.absolute()
        self.before = {path.name for path in self.folder.iterdir()} if self.folder.is_dir() else set()
        self.new = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        self._use: TextIO | None = None

    def use(self) -> None:
        """Mark the folder as in use until this process ends."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._use = (self.folder / IN_USE).open("w")
        fcntl.flock(self._use, fcntl.LOCK_SH)  # shared by the processes of a run, which `filelock` cannot

    def tidy(self) -> None:
        """Remove what this process began, if nothing came of it. What was there before stays."""
        with contextlib.suppress(OSError):  # another process of this job has removed it, or the disk fails
            self._tidy()

    def _tidy(self) -> None:
        made = {path.name for path in self.folder.iterdir()} - self.before
        if self._use is not None:
            if not try_lock(self._use):
                return  # another process uses it
            fcntl.flock(self._use, fcntl.LOCK_UN)  # the workers of a DataLoader hold the open file too
            self._use.close()
        if is_first() and all(name in BEGINNINGS or is_lock(name) for name in made):
            for name in made:
                path = self.folder / name
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        for folder in self.new:
            folder.rmdir()  # ends at one that is not empty


class Watch(Callback):
    """Notes the state of the run folder before Hydra creates it."""

    folder: RunFolder | None = None

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra when a single run begins."""
        with contextlib.suppress(OSError, OmegaConfBaseException):  # Hydra itself reports it later
            Watch.folder = RunFolder(Path(config.hydra.run.dir))


def write_settings(config: DictConfig, folder: Path) -> None:
    """Write the files that Hydra would write before the config is checked."""
    (folder / SETTINGS).mkdir(exist_ok=True)
    hydra: Any = HydraConfig.get()
    with locked(folder):  # the same command may have been started twice
        for name, content in {"config": config, "hydra": {"hydra": hydra}, "overrides": hydra.overrides.task}.items():
            write_atomically(folder / SETTINGS / f"{name}.yaml", OmegaConf.to_yaml(content))
