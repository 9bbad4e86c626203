"""What runs report to Weights & Biases and to CSV files, so that they can be compared."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger, WandbLogger
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from golden_noise.errors import UserError, first_line
from golden_noise.evaluation.gallery import chosen
from golden_noise.evaluation.scores import ALL, Scores
from golden_noise.npnet.checkpoint import best_of_run
from golden_noise.pairs.index import INDEX_NAME, ShardIndex
from golden_noise.pairs.source import ShardSource

if TYPE_CHECKING:
    from wandb import Artifact
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
    """The loggers of `config.logger`, which begin a run at the first thing that they are told."""
    loggers = [logger for logger in instantiate(config.logger).values() if logger is not None]
    for logger in loggers:
        if isinstance(logger, WandbLogger):  # it passes on a setting that W&B warns of, whatever its value
            logger._wandb_init.pop("anonymous", None)
    return loggers


def log_config(loggers: Sequence[Logger], config: DictConfig) -> None:
    """Tell loggers the whole config as hyperparameters.

    Raises:
        UserError: W&B does not take the settings of the run, its environment variables' included.
    """
    plain: Any = OmegaConf.to_container(config, resolve=True)
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            _begin(logger)
        logger.log_hyperparams(plain)


def _begin(logger: WandbLogger) -> None:
    """Begin a W&B run: its settings may come from anywhere, and fail in any way."""
    try:
        _ = logger.experiment
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"W&B cannot begin a run: {reason} (what was made stays)") from error


def wandb_run(loggers: Sequence[Logger]) -> "Run | None":
    """The W&B run among the loggers, if there is one."""
    return next((logger.experiment for logger in loggers if isinstance(logger, WandbLogger)), None)


def start_run(config: DictConfig) -> "Run | None":
    """A W&B run of a job without a Trainer, if `config.logger` has one."""
    loggers = build_loggers(config)
    log_config(loggers, config)
    return wandb_run(loggers)


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


# Lineage: collecting logs the pairs, training uses them and logs the weights, evaluating uses these -------------


def report_pairs(config: DictConfig) -> None:
    """Report a collection in a W&B run of its own, if a logger was chosen."""
    if config.get("logger") and (run := start_run(config)):
        index = ShardIndex.load(Path(config.data_dir))
        accepted, rejected = (sum(getattr(shard, name) for shard in index.shards) for name in ("samples", "rejected"))
        run.summary.update({"pairs/accepted": accepted, "pairs/rejected": rejected})
        run.log_artifact(pairs_artifact(Path(config.data_dir)))
        run.finish()


def report_training(run: "Run", data_dir: str, weights: Path) -> None:
    """Report what a training learnt from, where that is a folder, and the weights it led to."""
    source = ShardSource(data_dir)
    if not source.is_url and (source.folder / INDEX_NAME).is_file():
        use_artifact(run, pairs_artifact(source.folder))
    run.log_artifact(weights_artifact(weights))


def report_weights_used(run: "Run", source: str | None) -> None:
    """Report which NPNet was evaluated, where that is a folder from a training: the run's, or one of its NPNets."""
    folder = Path(best_of_run(str(Path(source).expanduser()))) if source else None
    if folder and (folder / "config.json").is_file():
        use_artifact(run, weights_artifact(folder))


def pairs_artifact(folder: Path) -> "Artifact":
    """A folder of pairs: its index, and references to the shards, none of which is copied or even read.

    Each shard stands there with the checksum that the index has, so the same pairs are the same version wherever
    they lie.
    """
    from wandb import Artifact
    from wandb.sdk.artifacts.artifact_manifest_entry import ArtifactManifestEntry

    index = ShardIndex.load(folder)
    pairs = sum(shard.samples for shard in index.shards)
    artifact = Artifact(_name("pairs", folder.name), "dataset", metadata={"pairs": pairs, "shards": len(index.shards)})
    artifact.add_file(str(folder / INDEX_NAME), policy="immutable", skip_cache=True)
    for shard in index.shards:
        place = (folder / shard.name).absolute().as_uri()
        entry = ArtifactManifestEntry.model_validate(
            {"path": shard.name, "digest": shard.sha256, "ref": place, "size": shard.bytes}
        )
        artifact.manifest.add_entry(entry)
    return artifact


def weights_artifact(folder: Path) -> "Artifact":
    """A folder of a trained NPNet. Its network is uploaded with the run; the card and settings may still change."""
    from wandb import Artifact

    artifact = Artifact(_name("npnet", folder.absolute().parents[1].name), "model")
    for path in sorted([folder / "config.json", *folder.glob("*.safetensors")]):
        artifact.add_file(str(path), policy="immutable", skip_cache=True)
    return artifact


def use_artifact(run: "Run", artifact: "Artifact") -> None:
    """Declare an artifact as an input of a run.

    Offline, `run.use_artifact` refuses. What it does online with an artifact that W&B may not know yet, offline is
    recorded, and done by `wandb sync`: the artifact is logged (the same content is the same version) and then used.
    """
    if run.offline:
        run._log_artifact(artifact, is_user_created=True, use_after_commit=True)
    else:
        run.use_artifact(artifact)


def _name(kind: str, name: str) -> str:
    return f"{kind}-{re.sub('[^A-Za-z0-9_.-]+', '-', name)}"[:128]
