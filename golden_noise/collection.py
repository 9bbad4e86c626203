"""The collect job: prompts, a pipeline, a search and a reward become shards of noise pairs."""

import itertools
import logging
import math
import sys
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import LightningEnvironment
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from tqdm import tqdm

from golden_noise import identity
from golden_noise.background import consume
from golden_noise.errors import UserError
from golden_noise.metrics.base import Metric
from golden_noise.noise import draw_noise, sampler_generators
from golden_noise.pairs import Failure, NoisePair, Result, ShardIndex, ShardWriter, prepare, prompts_digest
from golden_noise.pairs.source import is_url
from golden_noise.pipelines.base import Pipeline, PromptEmbedding
from golden_noise.pipelines.loading import model_dtype
from golden_noise.processes import telling_of_a_wait
from golden_noise.prompts import Prompt
from golden_noise.prompts.job import load_prompts
from golden_noise.search.base import NoiseSearch
from golden_noise.selection import Selection

TENSORS = ("noise", "golden", "embeds", "pooled")
AHEAD = 4  # batches that may wait for being written


class Collector:
    """Turns prompts into noise pairs, a batch at a time.

    Args:
        selection: which pairs are kept. None keeps every pair and draws no images, which is several times faster.
        settings: of the search, for the record.
        store_embeds: whether pairs carry their prompt's embedding.
        failures_in_a_row: so many failed prompts one after another are no fault of theirs.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        search: NoiseSearch,
        metrics: dict[str, Metric],
        selection: Selection | None,
        batch_size: int,
        settings: dict[str, Any],
        failures_in_a_row: int,
        store_embeds: bool = True,
    ):
        self.pipeline, self.search, self.metrics = pipeline, search, metrics
        self.selection, self.batch_size, self.settings = selection, batch_size, settings
        self.failures_in_a_row, self._failed = failures_in_a_row, 0
        self.store_embeds = store_embeds

    def results(self, prompts: Sequence[Prompt]) -> Iterator[list[Result]]:
        """A pair per prompt, in order, each from the noise of the prompt's own seed; a failure where there is none.

        Raises:
            UserError: too many prompts failed one after another.
        """
        for start in range(0, len(prompts), self.batch_size):
            results = self._results(prompts[start : start + self.batch_size])
            self._count_failures(results)
            yield results

    def _results(self, prompts: Sequence[Prompt]) -> list[Result]:
        """The results of a batch, by halves if it fails: less memory is needed, and a bad prompt found out."""
        try:
            return self._batch(prompts)
        except Exception as error:  # whatever models, metrics and libraries raise
            reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        if len(prompts) == 1:
            return [Failure.of(prompts[0], reason)]
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        middle = len(prompts) // 2
        return [*self._results(prompts[:middle]), *self._results(prompts[middle:])]

    def _batch(self, prompts: Sequence[Prompt]) -> list[Result]:
        noise = draw_noise([prompt.seed for prompt in prompts], self.pipeline.latent_shape)
        embedding = self.pipeline.encode([prompt.text for prompt in prompts])
        golden = self.search.search(noise, embedding, self.pipeline)
        scores = self._scores(prompts, embedding, noise, golden) if self.selection else [{} for _ in prompts]
        stored: dict[str, Tensor | None] = {"noise": noise, "golden": golden}
        if self.store_embeds:
            stored |= {"embeds": embedding.embeds, "pooled": embedding.pooled}
        halves = {name: tensor.to("cpu", torch.float16) for name, tensor in stored.items() if tensor is not None}
        finite = {name: half.isfinite().flatten(1).all(1).tolist() for name, half in halves.items()}
        results: list[Result] = []
        for i, prompt in enumerate(prompts):
            bad = [name for name in finite if not finite[name][i]]
            bad += [name for name, pair in scores[i].items() if not all(map(math.isfinite, pair))]
            if bad:
                results.append(Failure.of(prompt, f"not finite in float16: {', '.join(bad)}"))
                continue
            accepted = self.selection is None or self.selection.accepts(scores[i])
            tensors = {name: halves[name][i] if name in halves else None for name in TENSORS}
            results.append(NoisePair(prompt, scores=scores[i], accepted=accepted, search=self.settings, **tensors))
        return results

    def _count_failures(self, results: Sequence[Result]) -> None:
        for result in results:
            self._failed = self._failed + 1 if isinstance(result, Failure) else 0
            if isinstance(result, Failure) and self._failed >= self.failures_in_a_row:
                raise UserError(
                    f"the last {self._failed} prompts all failed (collection.failures_in_a_row):"
                    f" prompt {result.index} {result.prompt!r} with {result.reason}"
                )

    def _scores(
        self, prompts: Sequence[Prompt], embedding: PromptEmbedding, noise: Tensor, golden: Tensor
    ) -> list[dict[str, tuple[float, float]]]:
        """(standard, golden) per metric for every prompt; both images see the same sampler noise."""
        texts, seeds = [prompt.text for prompt in prompts], [prompt.seed for prompt in prompts]
        images = [self.pipeline.sample(embedding, x, generator=sampler_generators(seeds)) for x in (noise, golden)]
        columns = {
            name: [metric.score(texts, side).tolist() for side in images] for name, metric in self.metrics.items()
        }
        return [{name: (old[i], new[i]) for name, (old, new) in columns.items()} for i in range(len(prompts))]


def collect_job(config: DictConfig) -> bool:
    """The collect job: `collect` in as many processes as `config.fabric` says, which share the units of work.

    Returns:
        Whether this is the first of them, which is to report.

    Raises:
        UserError: the folder's pairs do not fit `config.mode`, cannot be written, or too many prompts fail.
    """
    if config.fabric.devices != 1 and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise UserError("several processes can work on one collection only: leave out -m or fabric.devices")
    folder = target(config)
    for name in ("lightning.fabric", "lightning.pytorch"):  # they tell at length how the processes met
        logging.getLogger(name).setLevel(logging.WARNING)
    alone = config.fabric.devices == config.fabric.num_nodes == 1  # whatever started this process
    fabric: Fabric = instantiate(config.fabric, plugins=[LightningEnvironment()] if alone else None)
    try:
        with telling_of_a_wait("fabric.devices=1 fabric.num_nodes=1"):
            fabric.launch()
    except ValueError as error:
        raise UserError(f"fabric.devices and fabric.num_nodes do not fit how this was started: {error}") from error
    if fabric.world_size > 1:
        config.device = str(fabric.device)
    units = work_units(config, quiet=not fabric.is_global_zero)
    mistake = None
    if fabric.is_global_zero:
        try:
            prepare(folder, provenance(config), units, config.mode)
        except UserError as error:
            mistake = str(error)
    if mistake := fabric.broadcast(mistake):
        if fabric.is_global_zero:
            raise UserError(mistake)
        sys.exit(2)  # said once is enough
    work(config, units, quiet=not fabric.is_global_zero)
    return fabric.is_global_zero


def collect(config: DictConfig) -> None:
    """Collect the shards that `config.data_dir` still lacks, in this process; a restart redoes only unfinished units.

    Raises:
        UserError: the folder holds other pairs, cannot be written, or too many prompts fail.
    """
    folder, units = target(config), work_units(config)
    prepare(folder, provenance(config), units)
    work(config, units)


def target(config: DictConfig) -> Path:
    """The folder to collect into.

    Raises:
        UserError: it is a URL: pairs are only read from there.
    """
    if is_url(config.data_dir):
        raise UserError(f"data_dir={config.data_dir} is no folder: training reads URLs, collecting writes to folders")
    return Path(config.data_dir)


def work_units(config: DictConfig, quiet: bool = False) -> list[Sequence[Prompt]]:
    """The prompts of every unit of work, a shard's worth each; unless `quiet`, says what they are."""
    prompts = load_prompts(config.prompts, quiet=quiet)
    size = config.collection.shard_size
    return [prompts[start : start + size] for start in range(0, len(prompts), size)]


def work(config: DictConfig, units: Sequence[Sequence[Prompt]], quiet: bool = False) -> None:
    """Collect unfinished units until there are none, beside any number of processes that do the same.

    Args:
        quiet: show neither progress nor summary.

    Raises:
        UserError: the folder cannot be written, or too many prompts fail.
    """
    writer = ShardWriter(config.data_dir, provenance(config))
    asked, total = [prompts_digest(prompts) for prompts in units], sum(map(len, units))

    def results() -> Iterator[tuple[int, list[Result]]]:
        collector = None
        for unit in taken:
            collector = collector or load_collector(config, total)
            bar.look(writer.index)
            for batch in collector.results(units[unit]):
                bar.count(batch)
                yield unit, batch
            yield unit, []  # its end, at once: the next unit may be long in coming

    def write(batches: Iterator[tuple[int, list[Result]]]) -> None:
        for unit, first in batches:
            rest = itertools.takewhile(len, map(itemgetter(1), batches))
            writer.write(unit, itertools.chain(first, itertools.chain.from_iterable(rest)), asked[unit])

    with CollectionProgress(total, quiet) as bar, writer.taking(asked, bar.wait) as taken:
        consume(results(), write, AHEAD)
        bar.look(writer.index)
    if not quiet:
        print(summary(writer.index))


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
    )


def provenance(config: DictConfig) -> dict[str, Any]:
    """The settings that decide what the pairs are, without those that only decide how fast they come."""
    return identity.pairs(_plain(config), model_dtype(config.pipeline.model, config.device))


def pipeline_identity(config: DictConfig) -> dict[str, Any]:
    """What pairs and the training that reads them must agree on."""
    return identity.pipeline(_plain(config))


def _plain(config: DictConfig) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return plain


class CollectionProgress(tqdm):
    """Progress over prompts, with prompts per second and the acceptance rate of this process."""

    def __init__(self, total: int, quiet: bool):
        super().__init__(desc="collecting", unit="pair", total=total, smoothing=0.05, disable=quiet)
        self.tried = self.accepted = self.failed = 0
        self.waits = False

    def look(self, index: ShardIndex) -> None:
        """Count what all processes have finished."""
        finished = sum(shard.tried for shard in index.shards)
        if not self.tried:  # of an earlier run: no part of this one's speed
            self.initial = self.n = finished
        self.update(max(0, finished - self.n))

    def count(self, results: Sequence[Result]) -> None:
        """Count a batch of this process."""
        self.tried += len(results)
        self.accepted += sum(isinstance(result, NoisePair) and result.accepted for result in results)
        self.failed += sum(isinstance(result, Failure) for result in results)
        failed = f", {self.failed} failed" if self.failed else ""
        self.set_postfix_str(f"accepted {self.accepted / self.tried:.0%}{failed}", refresh=False)
        self.update(len(results))

    def wait(self) -> None:
        """Say once that the rest is other processes' work."""
        if not self.waits and not self.disable:
            self.write("other processes collect the rest: waiting for them", file=sys.stderr)
        self.waits = True


def summary(index: ShardIndex) -> str:
    """One line: what a folder holds."""
    kept, failed = sum(shard.samples for shard in index.shards), sum(len(shard.failures) for shard in index.shards)
    tried = sum(shard.tried for shard in index.shards)
    share = f"{kept / max(tried, 1):.0%}" + (f", {failed} failed: mode=retry tries them again" if failed else "")
    return f"{kept} pairs of {tried} tried ({share}) in {len(index.shards)} shards: {index.folder}"
