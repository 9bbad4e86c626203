"""MLflow: one store for all runs, by default a local one without a server."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock
from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL.Image import Image

from golden_noise.errors import UserError
from golden_noise.files import write_atomically
from golden_noise.tracking.run_logger import RunLogger, flat, numbers, remembered, thumbnail

RUN = ".mlflow"  # holds the id of the run that a folder was logged to
LOCAL = "sqlite:///"
REFUSED = re.compile(r"[^/\w.\- :]")  # by MLflow, in names


class MLflow(RunLogger, MLFlowLogger):
    """Lightning's logger, which goes on with the run of a folder.

    Args:
        folder: of the job, which remembers its run.
        tracking_uri: of the store. Files of a store in SQLite are kept beside it.
        options: Lightning's.
    """

    def __init__(self, folder: str | Path, tracking_uri: str, **options: Any):
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a local store needs no network
        self._remembered = Path(folder) / RUN
        self._lock: AbstractContextManager[Any] = nullcontext()
        if tracking_uri.startswith(LOCAL):
            store = Path(tracking_uri.removeprefix(LOCAL)).absolute().parent
            store.mkdir(parents=True, exist_ok=True)
            options.setdefault("artifact_location", (store / "artifacts").as_uri())
            self._lock = FileLock(store / ".lock")  # two processes that both begin a store fail, and so do ranks
        with self._lock:
            super().__init__(tracking_uri=tracking_uri, run_id=remembered(self._remembered), **options)

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Begin or go on, and log settings by name, whose first values stay, and as a file, which holds the last."""
        from mlflow.exceptions import MlflowException

        try:
            with self._lock:
                client, run = self.experiment, self.run_id
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST" and self._remembered.exists():
                raise UserError(f"{error}, which {self._remembered} names: delete that file for a new one") from error
            raise
        write_atomically(self._remembered, str(run))
        client.update_run(run, "RUNNING")
        known = client.get_run(run).data.params
        settings = {REFUSED.sub("_", key): value for key, value in flat(params).items()}
        super().log_hyperparams({key: value for key, value in settings.items() if key not in known})
        client.log_dict(run, params, "config.yaml")

    @rank_zero_only
    def log_grid(self, key: str, grid: Image, step: int, caption: str) -> None:
        """Log an image that MLflow shows by step; it has no captions."""
        self.experiment.log_image(self.run_id, grid, key=key, step=step)

    @rank_zero_only
    def log_table(self, key: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Log a table under a name of its own, as MLflow would append it to an earlier one."""
        import pandas

        cells = [[thumbnail(cell) for cell in row] for row in rows]
        before = [file.path for file in self.experiment.list_artifacts(self.run_id, str(Path(key).parent))]
        number = sum(path.startswith(key) for path in before)
        file = f"{key}-{number + 1}.json" if number else f"{key}.json"
        self.experiment.log_table(self.run_id, pandas.DataFrame(cells, columns=columns), file)

    @rank_zero_only
    def log_figures(self, figures: Mapping[str, Any]) -> None:
        """Log metrics of step 0."""
        for key, value in numbers(figures).items():
            self.experiment.log_metric(self.run_id, REFUSED.sub("_", key), value)

    def finish(self) -> None:
        """Mark the run as finished again, as `finalize` did after the training."""
        self.finalize("success")
