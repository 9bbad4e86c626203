"""The collect job: prompts, a pipeline, a search and a reward become shards of noise pairs."""

from collections.abc import Iterator, Sequence
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from tqdm import tqdm

from golden_noise.metrics.base import Metric
from golden_noise.noise import draw_noise, sampler_generators
from golden_noise.pairs import NoisePair, ShardWriter
from golden_noise.pipelines.base import Pipeline, PromptEmbedding
from golden_noise.prompts import Prompt
from golden_noise.search.base import NoiseSearch
from golden_noise.selection import Selection


class Collector:
    """Turns prompts into noise pairs, a batch at a time.

    Args:
        selection: which pairs are kept. None keeps every pair and draws no images, which is several times faster.
        settings: of the search, for the record.
        store_embeds: whether pairs carry their prompt's embedding.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        search: NoiseSearch,
        metrics: dict[str, Metric],
        selection: Selection | None,
        batch_size: int,
        settings: dict[str, Any],
        store_embeds: bool = True,
    ):
        self.pipeline, self.search, self.metrics = pipeline, search, metrics
        self.selection, self.batch_size, self.settings = selection, batch_size, settings
        self.store_embeds = store_embeds

    def pairs(self, prompts: Sequence[Prompt]) -> Iterator[NoisePair]:
        """One pair per prompt, in order, each from the noise of the prompt's own seed."""
        for start in range(0, len(prompts), self.batch_size):
            yield from self._batch(prompts[start : start + self.batch_size])

    def _batch(self, prompts: Sequence[Prompt]) -> Iterator[NoisePair]:
        noise = draw_noise([prompt.seed for prompt in prompts], self.pipeline.latent_shape)
        embedding = self.pipeline.encode([prompt.text for prompt in prompts])
        golden = self.search.search(noise, embedding, self.pipeline)
        scores = self._scores(prompts, embedding, noise, golden) if self.selection else [{} for _ in prompts]
        stored = (embedding.embeds, embedding.pooled) if self.store_embeds else (None, None)
        embeds, pooled = ([None] * len(prompts) if part is None else part.float().cpu() for part in stored)
        for i, prompt in enumerate(prompts):
            accepted = self.selection is None or self.selection.accepts(scores[i])
            yield NoisePair(prompt, noise[i], golden[i], embeds[i], scores[i], accepted, self.settings, pooled[i])

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


def collect(config: DictConfig) -> None:
    """Collect the shards that `config.data_dir` still lacks; a restart redoes only unfinished units.

    Raises:
        UserError: the folder holds pairs made with other settings, or cannot be written.
    """
    prompts: list[Prompt] = instantiate(config.prompts)
    writer = ShardWriter(config.data_dir, provenance(config))
    size = config.collection.shard_size
    units = {unit: prompts[start : start + size] for unit, start in enumerate(range(0, len(prompts), size))}
    with writer.alone():
        missing = [unit for unit in units if not writer.is_finished(unit)]
        if missing:
            collector = load_collector(config)
            with CollectionProgress(
                total=len(prompts), initial=len(prompts) - sum(len(units[u]) for u in missing)
            ) as bar:
                for unit in missing:
                    writer.write(unit, bar.count(collector.pairs(units[unit])))
    print(summary(writer))


def load_collector(config: DictConfig) -> Collector:
    """Load the models that collecting needs: metrics only if they decide which pairs are kept."""
    options: Any = OmegaConf.to_container(config.collection, resolve=True)
    selection = Selection.parse(options["select_by"], options["margin"], config.metric.keys())
    return Collector(
        search=instantiate(config.search),
        pipeline=instantiate(config.pipeline.model),
        metrics=instantiate(config.metric) if selection else {},
        selection=selection,
        batch_size=options["batch_size"],
        settings=provenance(config)["search"],
        store_embeds=options["store_embeds"],
    )


def provenance(config: DictConfig) -> dict[str, Any]:
    """The settings that decide what the pairs are, without those that only decide how fast they come."""
    plain = _without_device(OmegaConf.to_container(config, resolve=True))
    model, options = plain["pipeline"]["model"], plain["collection"]
    sampler = {name: model.pop(name) for name in ("steps", "guidance")}  # no image, no influence on the pairs
    selection = {
        "metrics": plain["metric"],
        "by": options["select_by"],
        "margin": options["margin"],
        "sampler": sampler,
    }
    return {
        "pipeline": pipeline_identity(config),
        "model": model,
        "search": plain["search"],
        "prompts": plain["prompts"],
        "shard_size": options["shard_size"],
        "store_embeds": options["store_embeds"],
        "selection": selection if options["select_by"] is not None else {"by": None},
    }


def pipeline_identity(config: DictConfig) -> dict[str, Any]:
    """What pairs and the training that reads them must agree on."""
    plain = OmegaConf.to_container(config.pipeline, resolve=True)
    assert isinstance(plain, dict)
    return {name: plain[name] for name in ("name", "latent_shape", "embeds_shape")}


def _without_device(node: Any) -> Any:
    """The same settings on another device are the same settings."""
    if isinstance(node, dict):
        return {key: _without_device(value) for key, value in node.items() if key not in ("device", "memory")}
    return node


class CollectionProgress(tqdm):
    """Progress over pairs, with pairs per second and the acceptance rate."""

    def __init__(self, total: int, initial: int):
        super().__init__(desc="collecting", unit="pair", total=total, initial=initial, smoothing=0.05)
        self.seen = self.accepted = 0

    def count(self, pairs: Iterator[NoisePair]) -> Iterator[NoisePair]:
        for pair in pairs:
            self.seen += 1
            self.accepted += pair.accepted
            self.set_postfix_str(f"accepted {self.accepted / self.seen:.0%}", refresh=False)
            self.update()
            yield pair


def summary(writer: ShardWriter) -> str:
    """One line: what the folder holds now."""
    kept = sum(shard.samples for shard in writer.index.shards)
    total = kept + sum(shard.rejected for shard in writer.index.shards)
    share = kept / max(total, 1)
    return f"{kept} pairs of {total} tried ({share:.0%}) in {len(writer.index.shards)} shards: {writer.folder}"
