"""The collect job: prompts, a pipeline, a search and a reward become shards of noise pairs."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from golden_noise import identity
from golden_noise.collecting.collector import Collector
from golden_noise.collecting.selection import Selection
from golden_noise.errors import UserError
from golden_noise.metrics.limits import prompts_cut
from golden_noise.pairs import Failure, NoisePair, Result, ShardIndex, ShardWriter, Upload, prepare, prompts_digest
from golden_noise.pipelines.loading import model_dtype
from golden_noise.prompts import Prompt
from golden_noise.prompts.job import announce
from golden_noise.sharing.fabric import launch
from golden_noise.sharing.helpers import helpers, one_thread
from golden_noise.urls import is_url


def collect_job(config: DictConfig) -> bool:
    """The collect job: `collect` in as many processes as `config.fabric` says, which share the units of work.

    Returns:
        Whether this is the first process, which reports.

    Raises:
        UserError: the folder's pairs do not fit `config.mode`, cannot be written, or too many prompts fail.
    """
    folder, upload, units = target(config), upload_of(config), work_units(config)
    fabric = launch(config)
    mistake = None
    if fabric.is_global_zero:
        try:
            prepare(folder, provenance(config), units, config.mode, upload)
        except UserError as error:
            mistake = str(error)
    if mistake := fabric.broadcast(mistake):
        if fabric.is_global_zero:
            raise UserError(mistake)
        sys.exit(2)  # the first process reports it
    shared = helpers(config, sum(map(len, units)), len(units), help_to_collect)
    with shared if fabric.world_size == 1 else one_thread(config):
        work(config, units, quiet=not fabric.is_global_zero)
    return fabric.is_global_zero


def collect(config: DictConfig) -> None:
    """Collect the shards that `config.data_dir` still lacks, in this process; a restart redoes only unfinished units.

    Raises:
        UserError: the folder holds other pairs, cannot be written, or too many prompts fail.
    """
    folder, units = target(config), work_units(config)
    prepare(folder, provenance(config), units, upload=upload_of(config))
    with helpers(config, sum(map(len, units)), len(units), help_to_collect):
        work(config, units)


def help_to_collect(config: DictConfig) -> None:
    """Take part in a `collect` of another process."""
    work(config, work_units(config), quiet=True)


def target(config: DictConfig) -> Path:
    """The folder to collect into; refuse a URL."""
    if is_url(config.data_dir):
        raise UserError(f"data_dir={config.data_dir} is not a folder: only training reads URLs")
    return Path(config.data_dir)


def upload_of(config: DictConfig) -> Upload | None:
    """Where finished shards are uploaded to. A training that collects uploads nothing."""
    url = config.get("upload")
    return Upload(target(config), url) if url else None


def work_units(config: DictConfig) -> list[Sequence[Prompt]]:
    """The prompts of every unit of work, a shard's worth each."""
    prompts: list[Prompt] = instantiate(config.prompts)
    size = config.collection.shard_size
    return [prompts[start : start + size] for start in range(0, len(prompts), size)]


def work(config: DictConfig, units: Sequence[Sequence[Prompt]], quiet: bool = False) -> None:
    """Collect unfinished units until there are none, sharing them with other processes.

    Args:
        quiet: print nothing, as all processes of a job but the first.
    """
    writer = ShardWriter(config.data_dir, provenance(config), upload_of(config))
    digests, prompts = [prompts_digest(unit) for unit in units], [prompt for unit in units for prompt in unit]
    if not quiet:
        announce(prompts, config.prompts)
    with CollectionProgress(len(prompts), quiet) as bar, writer.taking(digests, bar.wait) as taken:
        collector = None
        for unit in taken:
            if shard := writer.collected(unit, digests[unit]):  # but not uploaded
                writer.finish(shard)
                continue
            if collector is None:
                collector = load_collector(config, len(prompts))
                bar.note(prompts_cut(collector.metrics, [prompt.text for prompt in prompts]))
            bar.look(writer.index)
            writer.write(unit, bar.counted(collector.results(units[unit])), digests[unit])
        bar.look(writer.index)
    if not quiet:
        print(summary(writer.index) + (f", uploaded to {config.upload}" if writer.upload else ""))


def load_collector(config: DictConfig, count: int) -> Collector:
    """Load the models that collecting `count` prompts needs: metrics only if they decide which pairs are kept."""
    options: Any = OmegaConf.to_container(config.collection, resolve=True)
    selection = Selection.parse(options["select_by"], options["margin"], config.metric.keys())
    return Collector(
        search=instantiate(config.search),
        pipeline=instantiate(config.pipeline.model),
        metrics=instantiate(config.metric) if selection else {},
        selection=selection,
        batch_size=options["batch_size"],
        settings=provenance(config)["search"],
        failures_in_a_row=min(options["failures_in_a_row"], count),
        store_embeds=options["store_embeds"],
        guided=options["guided"],
    )


def provenance(config: DictConfig) -> dict[str, Any]:
    """The settings that decide the pairs, without those that only decide the speed."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return identity.pairs(plain, model_dtype(config.pipeline.model, config.device))


def pipeline_identity(config: DictConfig) -> dict[str, Any]:
    """The settings that pairs and the training that reads them must share."""
    return identity.pipeline({"pipeline": OmegaConf.to_container(config.pipeline, resolve=True)})


class CollectionProgress(tqdm):
    """Progress over prompts, with prompts per second and the acceptance rate of this process."""

    def __init__(self, total: int, quiet: bool):
        super().__init__(desc="collecting", unit="pair", total=total, smoothing=0.05, disable=quiet)
        self.tried = self.accepted = self.failed = 0
        self.waits = False

    def look(self, index: ShardIndex) -> None:
        """Count what all processes have finished."""
        finished = sum(shard.tried for shard in index.shards)
        if not self.tried:  # of an earlier run: not part of this one's speed
            self.initial = self.n = finished
        self.update(max(0, finished - self.n))

    def counted(self, batches: Iterable[Sequence[Result]]) -> Iterator[Result]:
        """The results of this process's batches, counted as they come."""
        for results in batches:
            self.tried += len(results)
            self.accepted += sum(isinstance(result, NoisePair) and result.accepted for result in results)
            self.failed += sum(isinstance(result, Failure) for result in results)
            failed = f", {self.failed} failed" if self.failed else ""
            self.set_postfix_str(f"accepted {self.accepted / self.tried:.0%}{failed}", refresh=False)
            self.update(len(results))
            yield from results

    def note(self, lines: Sequence[str]) -> None:
        """Print notes above the bar."""
        if not self.disable:
            for line in lines:
                self.write(f"note: {line}", file=sys.stderr)

    def wait(self) -> None:
        """Print once that other processes collect the rest."""
        if not self.waits and not self.disable:
            self.write("other processes collect the rest: waiting for them", file=sys.stderr)
        self.waits = True


def summary(index: ShardIndex) -> str:
    """The content of a folder in one line."""
    kept, failed = sum(shard.samples for shard in index.shards), sum(len(shard.failures) for shard in index.shards)
    tried = sum(shard.tried for shard in index.shards)
    share = f"{kept / max(tried, 1):.0%}" + (f", {failed} failed: mode=retry tries them again" if failed else "")
    return f"{kept} pairs of {tried} tried ({share}) in {len(index.shards)} shards: {index.folder}"
