"""Reports of runs to Weights & Biases and to CSV files, from plain values only.

Lineage: collecting logs the pairs, training uses them and logs the weights, evaluating uses these.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger, WandbLogger
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from golden_noise.errors import UserError, first_line, one_line

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


def build_loggers(config: DictConfig) -> list[Logger]:
    """The loggers of `config.logger`, which begin a run when they first log something."""
    loggers = [logger for logger in instantiate(config.logger).values() if logger is not None]
    for logger in loggers:
        if isinstance(logger, WandbLogger):  # W&B warns of this setting, whatever its value
            logger._wandb_init.pop("anonymous", None)
    return loggers


def log_config(loggers: Sequence[Logger], config: DictConfig) -> None:
    """Log the whole config as hyperparameters."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            _begin(logger)
        logger.log_hyperparams(plain)


def _begin(logger: WandbLogger) -> None:
    """Begin a W&B run, whose settings, environment variables included, may fail in any way."""
    try:
        _ = logger.experiment
    except Exception as error:
        raise UserError(f"W&B cannot begin a run: {one_line(error, 300)} (results so far are kept)") from error


def wandb_run(loggers: Sequence[Logger]) -> "Run | None":
    """The W&B run among the loggers, if there is one."""
    return next((logger.experiment for logger in loggers if isinstance(logger, WandbLogger)), None)


def start_run(config: DictConfig) -> "Run | None":
    """A W&B run of a job without a Trainer, if `config.logger` has one."""
    loggers = build_loggers(config)
    log_config(loggers, config)
    return wandb_run(loggers)


def log_table(run: "Run", name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Log a table of plain values and images."""
    import wandb  # takes a second

    table = wandb.Table(columns=list(columns))
    for row in rows:
        table.add_data(*(wandb.Image(cell) if isinstance(cell, Image.Image) else cell for cell in row))
    run.log({name: table})


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
