"""What a training reads, by its objective: pairs, guided latents, prompts, or scores."""

import shlex
from functools import cache, partial
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from golden_noise import identity
from golden_noise.collecting.job import collect, pipeline_identity, provenance
from golden_noise.invocation import command
from golden_noise.pairs import ShardIndex, prompts_digest
from golden_noise.pairs.source import ShardSource
from golden_noise.pairs.streaming import StreamingDataModule
from golden_noise.pipelines.lazy import LazyPipeline
from golden_noise.training.guided_data import GuidedDataModule
from golden_noise.training.prompt_data import PromptDataModule
from golden_noise.training.score_data import ScoredDataModule
from golden_noise.training.start import check_precision
from golden_noise.urls import is_url


def build_data(config: DictConfig, pipeline: LazyPipeline) -> StreamingDataModule:
    """What the objective reads. The miniature's pairs are collected when they are missing."""
    reads = read_by(config)
    shape = config.pipeline.latent_shape
    order = {name: config.data[name] for name in ("batch_size", "seed", "pin_memory")}
    scored = ScoredDataModule(config.objective.path, pipeline, shape, **order) if reads == "scores" else None
    if reads != "pairs":
        check_precision(pipeline.loaded)  # which draws images
    if scored is not None:
        return scored
    if reads == "prompts":
        order["val_fraction"] = config.data.val_fraction
        return PromptDataModule(instantiate(config.prompts), pipeline, shape, **order)
    choices = f"{_pipeline(config)} prompts=file prompts.path=FILE metric=pickscore data_dir={config.data_dir}"
    pairs: dict[str, Any] = {
        "collect": cache(partial(collect, config)) if is_collected(config) else None,  # once, also for the Trainer
        "collect_hint": f"{command('collect')} {choices}",
        "pipeline": pipeline_identity(config),
        "encode": lambda prompts: pipeline.loaded.encode(prompts),  # loaded if a batch needs it
    }
    if reads == "guided":
        options: Any = OmegaConf.to_container(config.data, resolve=True)
        own = {name: value for name, value in options.items() if not name.startswith("_")}
        return GuidedDataModule(pipeline, _guided_by(config), **own, **pairs)
    return instantiate(config.data, metrics=[*(config.objective.get("filter") or {})], **pairs)


def is_collected(config: DictConfig) -> bool:
    """Whether the training collects what is missing: the miniature's pairs, into a folder."""
    place = config.data_dir
    is_folder = not is_url(place) and ShardSource(place).is_whole_folder
    return config.pipeline.bundled and is_folder and read_by(config) in ("pairs", "guided")


def _guided_by(config: DictConfig) -> dict[str, Any]:
    """What the guided latents of a collection must have been sampled with."""
    stored: Any = OmegaConf.to_container(config.objective.stored, resolve=True)
    return {"guided": stored, "model": provenance(config)["model"]}


def read_by(config: DictConfig) -> str:
    """What the objective reads (see `Objective`), known without building it."""
    return get_class(config.objective._target_).reads  # type: ignore[attr-defined]


def learnt_from(data: StreamingDataModule) -> dict[str, Any]:
    """What decides the data of this training, for `identity.run`."""
    if isinstance(data, PromptDataModule):
        return {"prompts": prompts_digest(data.all_prompts)}
    index: ShardIndex | None = getattr(data, "index", None)
    shards = {shard.name: shard.sha256 for shard in index.shards} if index else {}
    return identity.pairs_read(index.config if index else {}, shards)


def _pipeline(config: DictConfig) -> str:
    """The settings that chose the pipeline, as on this job's command line."""
    given = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    chosen = [text for text in given if text.lstrip("+~").startswith(("pipeline=", "pipeline."))]
    return shlex.join(chosen or [f"pipeline={config.pipeline.name}"])
