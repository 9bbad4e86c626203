"""The train job: noise pairs become an NPNet, which is then compared on held-out prompts."""

import json
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import LambdaCallback, LearningRateMonitor
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from golden_noise import identity
from golden_noise.collecting.job import collect, pipeline_identity, provenance
from golden_noise.collecting.report import folder_artifact
from golden_noise.device import device_kind
from golden_noise.errors import UserError
from golden_noise.evaluation.job import check_choices, evaluate
from golden_noise.files import write_atomically
from golden_noise.generation.network import load_npnet, trained_folder
from golden_noise.noise import sampler_generators
from golden_noise.npnet import AnyNPNet
from golden_noise.pairs import NoisePairDataModule, ShardIndex
from golden_noise.pairs.index import INDEX_NAME
from golden_noise.pairs.order import Split
from golden_noise.pairs.source import ShardSource
from golden_noise.pipelines.lazy import LazyPipeline
from golden_noise.pipelines.loading import model_dtype
from golden_noise.prompts import Prompt
from golden_noise.prompts.job import of_another_pipeline
from golden_noise.sharing.claims import alone
from golden_noise.sharing.processes import announcing_a_wait, is_first
from golden_noise.tracking import record
from golden_noise.tracking.wandb import (
    build_loggers,
    log_config,
    log_in,
    report_weights_used,
    use_artifact,
    wandb_run,
    weights_artifact,
)
from golden_noise.training.callbacks import SampleGrid, SaveNPNet
from golden_noise.training.card import write_card
from golden_noise.training.checkpoints import LAST, AtomicCheckpointIO, resumable
from golden_noise.training.facts import run_facts
from golden_noise.training.module import NPNetModule
from golden_noise.training.start import check_new, check_precision, trained_before

GRID_PROMPTS = 8
IDENTITY = "identity.json"
ADVICE = "give another name=NAME or delete that folder"


def train(config: DictConfig) -> None:
    """Train, from the run folder's last checkpoint if there is one, save NPNet, and evaluate it.

    Raises:
        UserError: no pairs, pairs of another pipeline, a precision that cannot be trained in, an evaluation that
            cannot follow, or a folder with a training of other settings, a damaged checkpoint, or another process.
    """
    if config.evaluate:
        check_choices(config)  # now rather than after the training
    folder = Path(config.folder)
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder, "training") if is_first() else nullcontext():
        check_settings(config, folder)
        train_alone(config, folder)


def train_alone(config: DictConfig, folder: Path) -> None:
    """`train` in a folder that no other process uses."""
    log_in(config)
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    seed_everything(config.seed, workers=True, verbose=False)

    pipeline = LazyPipeline(config.pipeline.model)
    data = build_data(config, pipeline)
    module = NPNetModule(
        build_npnet(config, pipeline),
        instantiate(config.model.optimizer),
        instantiate(config.model.scheduler),
    )
    checkpoints = Path(OmegaConf.select(config, "callbacks.last.dirpath") or folder / "checkpoints")
    last = resumable(checkpoints, module, config.trainer.max_epochs, config.trainer.get("max_steps"))
    if last is None and (folder / "npnet").exists():
        raise UserError(f"{folder} holds a network, but no checkpoint {checkpoints / LAST} to go on from: {ADVICE}")
    loggers = build_loggers(config)
    trainer = build_trainer(config, loggers, data, pipeline)
    # Before the Trainer does the same for all ranks, so that a run is not logged where the pairs do not fit.
    rank_zero_only(data.prepare_data)()
    rank_zero_only(data.setup)("fit")
    begin(config, folder, data, trainer)
    log_config(trainer.loggers, config)
    with announcing_a_wait("devices=1") as timer:
        trainer.callbacks.append(LambdaCallback(setup=lambda *_, **__: timer.cancel()))  # type: ignore[attr-defined]
        try:
            trainer.fit(module, datamodule=data, ckpt_path=last, weights_only=True)
        except SIGTERMException:  # a SystemExit that says that all is well
            sys.exit(128 + signal.SIGTERM)
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return  # Lightning saves nothing then
    if trainer.is_global_zero:
        finish(config, folder, trainer, data, pipeline)


def build_trainer(
    config: DictConfig, loggers: list[Logger], data: NoisePairDataModule, pipeline: LazyPipeline
) -> Trainer:
    """The Trainer of the config, whose checkpoints are written whole or not at all."""
    callbacks = build_callbacks(config, data, pipeline, logs=bool(loggers))
    plugins = [AtomicCheckpointIO(), *instantiate(config.trainer.get("plugins") or [])]
    return instantiate(config.trainer, logger=loggers, callbacks=callbacks, plugins=plugins)


def check_settings(config: DictConfig, folder: Path) -> None:
    """Compare the settings with those of the training in the folder, if there is one, before any work.

    Raises:
        UserError: they are others.
    """
    if (old := made_by(folder)) is None:
        return
    pairs = old.get("pairs", {})
    if config.pipeline.bundled:  # the pairs are collected on demand: what they will be is known
        pairs = pairs | {"made_by": provenance(config)}
    identity.check(folder, old, run_identity(config, pairs), ADVICE)


def begin(config: DictConfig, folder: Path, data: NoisePairDataModule, trainer: Trainer) -> None:
    """Record what decides the training in its folder, unless the folder holds another.

    Raises:
        UserError: it does.
    """
    if not trainer.is_global_zero:
        return  # only the first rank has looked at the pairs
    index: ShardIndex | None = getattr(data, "index", None)
    shards = {shard.name: shard.sha256 for shard in index.shards} if index else {}
    new = run_identity(config, identity.pairs_read(index.config if index else {}, shards))
    if (old := made_by(folder)) is not None:
        identity.check(folder, old, new, ADVICE)
    OmegaConf.save(config, folder / "config.yaml", resolve=True)
    if not trainer.fast_dev_run:  # type: ignore[attr-defined]
        write_atomically(folder / IDENTITY, json.dumps(new, indent=2) + "\n")


def run_identity(config: DictConfig, pairs: dict[str, Any]) -> dict[str, Any]:
    """What decides the weights of this training, see `identity.run`."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    dtype = model_dtype(config.pipeline.model, config.device)
    return identity.run(plain, dtype, device_kind(config.device), pairs)


def made_by(folder: Path) -> dict[str, Any] | None:
    """The identity of the training in a folder; None if nothing was trained there.

    Raises:
        UserError: it does not say what made it.
    """
    if not any((folder / name).exists() for name in ("checkpoints/last.ckpt", "npnet")):
        return None
    try:
        found = json.loads((folder / IDENTITY).read_text("utf-8"))
        if isinstance(found, dict):
            return found
        reason = "is damaged"
    except FileNotFoundError:
        reason = "is missing, which earlier versions did not write"
    except (OSError, ValueError):
        reason = "is damaged"
    raise UserError(f"{folder / IDENTITY} {reason}: what trained {folder} is not known; {ADVICE}")


def build_npnet(config: DictConfig, pipeline: LazyPipeline) -> AnyNPNet:
    """The network of the config, on the pipeline's own denoiser if it is one that shares it."""
    if config.get("npnet") is not None:
        return trained_before(config, pipeline)
    check_new(config)
    npnet = instantiate(config.model.npnet)
    if not isinstance(npnet, partial):
        return npnet
    check_precision(pipeline.loaded)
    return npnet(pipeline.loaded)


def build_data(config: DictConfig, pipeline: LazyPipeline) -> NoisePairDataModule:
    """The pairs; the miniature's are collected when they are missing."""
    choices = f"pipeline={config.pipeline.name} prompts=file prompts.path=FILE data_dir={config.data_dir}"
    return instantiate(
        config.data,
        collect=cache(partial(collect, config)) if config.pipeline.bundled else None,  # once, also for the Trainer
        collect_hint=f"python collect.py {choices}",
        pipeline=pipeline_identity(config),
        encode=lambda prompts: pipeline.loaded.encode(prompts),  # loaded if a batch needs it
    )


def build_callbacks(
    config: DictConfig, data: NoisePairDataModule, pipeline: LazyPipeline, logs: bool
) -> list[Callback]:
    """The callbacks of the config.

    Args:
        logs: whether there is a logger, without which Lightning refuses to monitor learning rates.

    Raises:
        UserError: none of them saves the network.
    """
    chosen = [callback for callback in instantiate(config.callbacks).values() if callback is not None]
    callbacks = [c for c in chosen if logs or not isinstance(c, LearningRateMonitor)]
    if not config.trainer.get("fast_dev_run") and not any(isinstance(callback, SaveNPNet) for callback in callbacks):
        raise UserError("callbacks.save_npnet is missing: nothing would be left of the training")
    if config.sample_every_n_epochs:
        folder = Path(config.folder) / "samples"
        callbacks.append(SampleGrid(grid_sampler(config, data, pipeline), folder, config.sample_every_n_epochs))
    return callbacks


def learnt_prompts(config: DictConfig, data: NoisePairDataModule, split: Split, count: int) -> list[Prompt]:
    """Prompts of one side of the pairs, with noises that do not depend on how these were collected."""
    return [Prompt(i, text, config.data_seed + i) for i, text in enumerate(data.prompts(split, count))]


def grid_prompts(config: DictConfig, data: NoisePairDataModule) -> list[Prompt]:
    """Prompts that are not trained on: the evaluation's, or the pairs' own where those are the miniature's."""
    chosen = config.evaluation.prompts
    if chosen is None or of_another_pipeline(config, chosen):
        return learnt_prompts(config, data, "val", GRID_PROMPTS)
    return instantiate(chosen)[:GRID_PROMPTS]


def grid_sampler(
    config: DictConfig, data: NoisePairDataModule, pipeline: LazyPipeline
) -> Callable[[AnyNPNet | None], Tensor]:
    """Draws the first held-out prompts, always from the same noise, through an NPNet or (None) as it is."""
    known = cache(partial(grid_prompts, config, data))  # once the pairs are there

    def sample(npnet: AnyNPNet | None) -> Tensor:
        loaded, prompts = pipeline.loaded, known()
        seeds = [prompt.seed for prompt in prompts]
        embedding = loaded.encode([prompt.text for prompt in prompts])
        latents = loaded.draw_noise(seeds)
        if npnet is not None:
            latents = npnet.golden(latents, embedding)
        return loaded.sample(embedding, latents, generator=sampler_generators(seeds))

    return sample


def finish(
    config: DictConfig, folder: Path, trainer: Trainer, data: NoisePairDataModule, pipeline: LazyPipeline
) -> None:
    """Evaluate the best NPNet, record what the run was, and say where everything is."""
    run = wandb_run(trainer.loggers)
    best = folder / "npnet/best"
    if not best.is_dir():
        raise UserError(f"nothing was trained in {folder}: check trainer.max_epochs={config.trainer.max_epochs}")
    # What may be published with the weights says nothing about the machine.
    settings = (folder / "config.yaml").read_text().replace(f"{Path.cwd()}/", "")
    (best / "training.yaml").write_text(settings)
    network = config.model.npnet._target_
    source = str(best) if network.startswith("golden_noise.npnet.") else f"{network}:{best}"
    npnet = load_npnet(config, source, pipeline)
    index: ShardIndex | None = getattr(data, "index", None)
    search = index.config.get("search") if index else None  # which pairs are read, whatever the config searches with
    write_card(best, npnet, config, None, search)  # there is one even if the evaluation is interrupted
    if config.evaluate:
        learning = partial(learnt_prompts, config, data, "train")
        summary = evaluate(config, npnet, folder / "evaluation", pipeline, lambda: run, learning)
        write_card(best, npnet, config, summary, search)
    facts = run_facts(config, trainer, npnet)
    if run:
        run.summary.update({f"run/{name}": value for name, value in facts.items() if value is not None})
        report_weights_used(run, trained_folder(config.get("npnet")))
        pairs = ShardSource(config.data_dir)
        if not pairs.is_url and (pairs.folder / INDEX_NAME).is_file():
            use_artifact(run, folder_artifact(ShardIndex.load(pairs.folder)))
        run.log_artifact(weights_artifact(best))
        run.finish()
    record.write(folder, facts)
    print(f"NPNet: {best.resolve()}")
