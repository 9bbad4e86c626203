"""What runs report to Weights & Biases and to CSV files, so that they can be compared."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger, WandbLogger
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from golden_noise.errors import UserError
from golden_noise.evaluation.gallery import chosen
from golden_noise.evaluation.scores import ALL, Scores
from golden_noise.pipelines.loading import first_line

if TYPE_CHECKING:
    from wandb.sdk.wandb_run import Run

ROWS = 100  # of the table of images
MODES = ("offline", "online", "disabled")


def log_in(config: DictConfig) -> None:
    """Log in to W&B where runs go there at once, so that what stands in the way is noticed before any work.

    Raises:
        UserError: no or a wrong key, no network, or no such mode.
    """
    mode = OmegaConf.select(config, "logger.wandb.mode")
    if mode not in (None, *MODES):
        raise UserError(f"logger.wandb.mode={mode} must be one of {', '.join(MODES)}")
    if mode != "online":
        return
    import wandb  # takes a second

    try:
        wandb.login(verify=True)
    except (wandb.Error, OSError) as error:
        reason = first_line(error)
        raise UserError(f"logger.wandb.mode=online: {reason} With mode=offline runs can be uploaded later") from error


def build_loggers(config: DictConfig) -> list[Logger]:
    """The loggers of `config.logger`, with the whole config as hyperparameters."""
    loggers = list(instantiate(config.logger).values())
    plain: Any = OmegaConf.to_container(config, resolve=True)
    for logger in loggers:
        logger.log_hyperparams(plain)
    return loggers


def wandb_run(loggers: Sequence[Logger]) -> "Run | None":
    """The W&B run among the loggers, if there is one."""
    return next((logger.experiment for logger in loggers if isinstance(logger, WandbLogger)), None)


def log_evaluation(
    run: "Run", summary: dict[str, Any], scores: Scores, images: Callable[[str, int], Image.Image]
) -> None:
    """Report an evaluation: its figures as summary values, and a table of images with their scores.

    Args:
        summary: content of `results.json`.
        images: gives a method's image of the item at a position in `scores.items`.
    """
    import wandb  # takes a second

    methods = scores.shown
    columns = [f"{metric}/{method}" for metric in scores.metrics for method in methods]
    table = wandb.Table(columns=["index", "task", "prompt", "seed", *methods, *columns])
    for i in chosen(scores)[:ROWS]:
        item = scores.items[i]
        drawn = [wandb.Image(images(method, i)) for method in methods]
        numbers = [float(scores.values[metric][method][i]) for metric in scores.metrics for method in methods]
        table.add_data(item["index"], item["task"], item["prompt"], item["seed"], *drawn, *numbers)
    run.log({"eval/images": table})
    run.summary.update(figures(summary))


def figures(summary: dict[str, Any]) -> dict[str, float]:
    """The means and gains of an evaluation."""
    means = {
        f"eval/{metric}/{method}": result["mean"]
        for method, metrics in summary["methods"].items()
        for metric, result in metrics.items()
    }
    gains = {
        f"eval/{c['metric']}/{c['b']}_minus_{c['a']}": c["difference"]
        for c in summary["comparisons"]
        if c["task"] == ALL
    }
    return means | gains
