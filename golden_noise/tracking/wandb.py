"""Weights & Biases: runs that are offline by default, and what joins them.

Lineage: collecting logs the pairs, training uses them and logs the weights, evaluating uses these.
"""

import contextlib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from tqdm import tqdm

from golden_noise.errors import UserError, first_line
from golden_noise.tracking.run_logger import RunLogger

if TYPE_CHECKING:
    from wandb import Artifact
    from wandb.sdk.wandb_run import Run

WANDB_MODES = ("offline", "online", "disabled")


def log_in(config: DictConfig) -> None:
    """Log in to W&B in mode online, so that a wrong key or no network is reported before any work."""
    mode = OmegaConf.select(config, "logger.wandb.mode")
    if mode not in (None, *WANDB_MODES):
        raise UserError(f"logger.wandb.mode={mode} must be one of {', '.join(WANDB_MODES)}")
    if mode != "online":
        return
    import wandb  # takes a second

    try:
        wandb.login(verify=True)
    except (wandb.Error, OSError) as error:
        reason = first_line(error)
        raise UserError(f"logger.wandb.mode=online: {reason} With mode=offline runs can be uploaded later") from error


class Wandb(RunLogger, WandbLogger):
    """Lightning's logger. A resumed job begins another run of the same group.

    A process of W&B writes what is logged. If it ends, a job goes on without: a cluster's SIGTERM reaches it too, and a
    training must then still write its checkpoint.
    """

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._wandb_init.pop("anonymous", None)  # W&B warns of this setting, whatever its value

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """W&B's run, or one that ignores everything once W&B's process has ended."""
        begins = self._experiment is None
        run = super().experiment
        if begins:
            _end_quietly()
        if _has_ended():
            self._go_on_without(run)
        return self._experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers; these are what is logged most, so W&B's process may end meanwhile."""
        run = self.experiment
        try:
            super().log_metrics(metrics, step)
        except ConnectionError:
            self._go_on_without(run)

    def _go_on_without(self, run: Any) -> None:
        import wandb

        folder = Path(run.dir).parent
        line = f"W&B's process has ended, nothing more is logged to it: `wandb sync {folder}` uploads what was before"
        tqdm.write(line, file=sys.stderr)
        with contextlib.suppress(SystemExit):  # it passes on how its process has ended
            wandb.teardown()
        self._experiment = wandb.init(mode="disabled")

    def log_grid(self, key: str, grid: Image.Image, step: int, caption: str) -> None:
        """Log the image with its caption."""
        self.log_image(key, [grid], step=step, caption=[caption])

    @rank_zero_only
    def log_table(  # type: ignore[override]
        self, key: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]
    ) -> None:
        """Log a table, images included."""
        import wandb  # takes a second

        table = wandb.Table(columns=list(columns))
        for row in rows:
            table.add_data(*(wandb.Image(cell) if isinstance(cell, Image.Image) else cell for cell in row))
        self.experiment.log({key: table})

    @rank_zero_only
    def log_figures(self, figures: Mapping[str, Any]) -> None:
        """Log them to the run's summary."""
        self.experiment.summary.update(figures)

    @rank_zero_only
    def finish(self) -> None:
        """Wait until the run is written, or uploaded."""
        self.experiment.finish()


def _connection() -> Any:
    """To W&B's process; None: without one."""
    from wandb.sdk import wandb_setup

    return wandb_setup.singleton()._connection


def _has_ended() -> bool:
    """Whether W&B's process was there and is no more."""
    service = getattr(_connection(), "_proc", None)
    return service is not None and service._process.poll() is not None


def _end_quietly() -> None:
    """Spare users W&B's traceback at exit, where its process has ended before: what was logged is in its folder."""
    connection = _connection()
    if connection is None or "teardown" in vars(connection):  # an earlier run of this process did it
        return
    plain = connection.teardown

    def teardown(exit_code: int) -> int | None:
        with contextlib.suppress(ConnectionError):
            return plain(exit_code)
        return None

    connection.teardown = teardown


def pairs_artifact(index: Path, shards: Mapping[str, str], pairs: int) -> "Artifact":
    """A folder of pairs: its index, and references to the shards, which are neither copied nor read.

    Args:
        index: the file that lists the shards beside it.
        shards: their checksums by name, so that the same pairs are the same version in any folder.
        pairs: their number.
    """
    from wandb import Artifact
    from wandb.sdk.artifacts.artifact_manifest_entry import ArtifactManifestEntry

    metadata = {"pairs": pairs, "shards": len(shards)}
    artifact = Artifact(_name("pairs", index.parent.name), "dataset", metadata=metadata)
    artifact.add_file(str(index), policy="immutable", skip_cache=True)
    for name, digest in shards.items():
        file = index.with_name(name).absolute()
        entry = {"path": name, "digest": digest, "ref": file.as_uri(), "size": file.stat().st_size}
        artifact.manifest.add_entry(ArtifactManifestEntry.model_validate(entry))
    return artifact


def weights_artifact(folder: Path) -> "Artifact":
    """The network of a trained NPNet's folder, without the card and settings, which may still change."""
    from wandb import Artifact

    artifact = Artifact(_name("npnet", folder.absolute().parents[1].name), "model")
    for path in sorted([folder / "config.json", *folder.glob("*.safetensors")]):
        artifact.add_file(str(path), policy="immutable", skip_cache=True)
    return artifact


def report_weights_used(run: "Run", folder: Path | None) -> None:
    """Report which trained NPNet a run used; None: one that W&B does not know."""
    if folder:
        use_artifact(run, weights_artifact(folder))


def use_artifact(run: "Run", artifact: "Artifact") -> None:
    """Declare an artifact as an input of a run.

    Offline, `run.use_artifact` refuses. This records what it does online for `wandb sync`: the artifact is logged (the
    same content is the same version) and then used.
    """
    if run.offline:
        run._log_artifact(artifact, is_user_created=True, use_after_commit=True)
    else:
        run.use_artifact(artifact)


def _name(job: str, name: str) -> str:
    return f"{job}-{re.sub('[^A-Za-z0-9_.-]+', '-', name)}"[:128]
