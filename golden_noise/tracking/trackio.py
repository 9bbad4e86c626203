"""Trackio: a local store and dashboard without an account, with W&B's interface."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only
from PIL.Image import Image

from golden_noise.files import write_atomically
from golden_noise.tracking.run_logger import RunLogger, numbers, remembered, thumbnail

RUN = ".trackio"  # holds the id of the run that a folder was logged to


class Trackio(RunLogger, Logger):
    """A run of Trackio's, in the store that its own variables choose (TRACKIO_DIR, ...).

    Args:
        project: to compare runs in.
        name: of the run in the project.
        folder: of the job, which remembers its run.
        options: further ones of `trackio.init`.
    """

    def __init__(self, project: str, name: str, folder: str | Path, **options: Any):
        super().__init__()
        self._options = {"project": project, "name": name, **options}
        self._remembered = Path(folder) / RUN
        self._run: Any = None

    @property
    def name(self) -> str:
        """The project."""
        return str(self._options["project"])

    @property
    def version(self) -> str:
        """The name of the run."""
        return str(self._options["name"])

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run: the folder's, unless that is gone from the store or another run has taken its name since."""
        if self._run is None:
            import trackio  # takes seconds

            before = remembered(self._remembered)
            self._run = trackio.init(**self._options, resume="allow" if before else "never")
            if before and self._run.id != before:
                self._run = trackio.init(**self._options, resume="never")
            write_atomically(self._remembered, self._run.id)
        return self._run

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Begin or go on with these settings, which Trackio stores together with the first metrics."""
        self._options["config"] = params
        _ = self.experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log metrics of a step; None: of the next one."""
        self.experiment.log(dict(metrics), step)

    @rank_zero_only
    def log_grid(self, key: str, grid: Image, step: int, caption: str) -> None:
        """Log the image with its caption."""
        import trackio

        self.log_metrics({key: trackio.Image(grid, caption)}, step)

    @rank_zero_only
    def log_table(self, key: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Log a table, images included."""
        import trackio

        def cell(value: Any) -> Any:
            return trackio.Image(thumbnail(value)) if isinstance(value, Image) else value

        self.log_metrics({key: trackio.Table([*columns], [[cell(value) for value in row] for row in rows])})

    def log_figures(self, figures: Mapping[str, Any]) -> None:
        """Log metrics of the next step."""
        self.log_metrics(numbers(figures))

    @rank_zero_only
    def finish(self) -> None:
        """Wait until the store has all."""
        import trackio

        trackio.finish()
