"""The loggers of a job: built from its config, begun, and ended."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger, WandbLogger
from omegaconf import DictConfig, OmegaConf

from golden_noise.errors import UserError, one_line
from golden_noise.tracking.run_logger import RunLogger

if TYPE_CHECKING:
    from wandb.sdk.wandb_run import Run


def build_loggers(config: DictConfig) -> list[Logger]:
    """The loggers of `config.logger`, which begin a run when they first log something."""
    return [logger for logger in instantiate(config.logger).values() if logger is not None]


def log_config(loggers: Sequence[Logger], config: DictConfig) -> None:
    """Begin a run with every logger, and log the whole config as hyperparameters.

    Raises:
        UserError: a logger's settings, environment variables included, or its store may fail in any way.
    """
    plain: Any = OmegaConf.to_container(config, resolve=True)
    for logger in loggers:
        try:
            logger.log_hyperparams(plain)
        except Exception as error:
            name = type(logger).__name__
            raise UserError(f"{name} cannot begin a run: {one_line(error, 300)} (results so far are kept)") from error


def begin_run(config: DictConfig) -> list[Logger]:
    """The loggers of a job without a Trainer, with a run that has begun."""
    loggers = build_loggers(config)
    log_config(loggers, config)
    return loggers


def run_loggers(loggers: Sequence[Logger]) -> list[RunLogger]:
    """The loggers that take more than metrics."""
    return [logger for logger in loggers if isinstance(logger, RunLogger)]


def wandb_run(loggers: Sequence[Logger]) -> "Run | None":
    """The W&B run among the loggers, if there is one: it also takes artifacts."""
    return next((logger.experiment for logger in loggers if isinstance(logger, WandbLogger)), None)
