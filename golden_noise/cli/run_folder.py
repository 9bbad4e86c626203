"""What a run finds at the place of its folder, and what it takes away again if it comes to nothing."""

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
from golden_noise.sharing.claims import is_lock
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
        """Tell other processes that this one uses the folder, until its end."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._use = (self.folder / IN_USE).open("w")
        fcntl.flock(self._use, fcntl.LOCK_SH)  # shared by the processes of a run, which `filelock` cannot

    def leave(self) -> None:
        """Use it no longer."""
        if self._use is not None:
            fcntl.flock(self._use, fcntl.LOCK_UN)  # a DataLoader's workers have the open file, too
            self._use.close()
            self._use = None

    def _is_shared(self) -> bool:
        """Whether another process uses the folder, too."""
        if self._use is not None:
            try:
                fcntl.flock(self._use, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
        return False

    def tidy(self) -> None:
        """Take back what this process began, if nothing came of it. What was there before stays, whatever it is."""
        try:
            made = {path.name for path in self.folder.iterdir()} - self.before
        except OSError:
            return  # another process of this job has removed it
        if self._is_shared():
            return
        self.leave()
        if is_first() and all(name in BEGINNINGS or is_lock(name) for name in made):
            for name in made:
                path = self.folder / name
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty, or another process was faster
            for folder in self.new:
                folder.rmdir()


class Watch(Callback):
    """Notes how the run folder was, before Hydra makes it."""

    found: RunFolder | None = None

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Hydra's word that a single run, no multirun, begins."""
        with contextlib.suppress(OSError, OmegaConfBaseException):  # Hydra says so itself, in a moment
            Watch.found = RunFolder(Path(config.hydra.run.dir))


def write_settings(config: DictConfig, folder: Path) -> None:
    """Write the composed config and the command line's part of it: as Hydra does, but not before they are checked."""
    place = folder / SETTINGS
    place.mkdir(exist_ok=True)
    hydra: Any = HydraConfig.get()
    for name, content in {"config": config, "hydra": {"hydra": hydra}, "overrides": hydra.overrides.task}.items():
        OmegaConf.save(content, place / f"{name}.yaml")
