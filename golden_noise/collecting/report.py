"""Reports a collection to loggers."""

from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from golden_noise.pairs import ShardIndex
from golden_noise.pairs.index import INDEX_NAME
from golden_noise.tracking.loggers import begin_run, run_loggers, wandb_run
from golden_noise.tracking.wandb import pairs_artifact

if TYPE_CHECKING:
    from wandb import Artifact


def report_pairs(config: DictConfig) -> None:
    """Report a collection in a run of its own, with every logger that was chosen."""
    if not config.get("logger"):
        return
    loggers = begin_run(config)
    index = ShardIndex.load(Path(config.data_dir))
    accepted, rejected = (sum(getattr(shard, name) for shard in index.shards) for name in ("samples", "rejected"))
    for logger in run_loggers(loggers):
        logger.log_figures({"pairs/accepted": accepted, "pairs/rejected": rejected})
    if run := wandb_run(loggers):
        run.log_artifact(folder_artifact(index))
    for logger in run_loggers(loggers):
        logger.finish()


def folder_artifact(index: ShardIndex) -> "Artifact":
    """A folder of pairs as W&B knows it."""
    shards = {shard.name: shard.sha256 for shard in index.shards}
    return pairs_artifact(index.folder / INDEX_NAME, shards, sum(shard.samples for shard in index.shards))
