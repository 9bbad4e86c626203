"""The train job: noise pairs, or prompts and a reward, become an NPNet, which is compared on held-out prompts."""

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
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from golden_noise import identity
from golden_noise.collecting.job import provenance
from golden_noise.collecting.report import folder_artifact
from golden_noise.device import device_type
from golden_noise.errors import UserError
from golden_noise.evaluation.job import check_prompts, evaluate, sharing
from golden_noise.files import write_atomically
from golden_noise.generation.candidates import Origin
from golden_noise.generation.network import load_npnet, trained_folder
from golden_noise.generation.provenance import weights_digest
from golden_noise.noise import sampler_generators
from golden_noise.npnet import AnyNPNet
from golden_noise.objectives.base import Objective
from golden_noise.pairs import ShardIndex
from golden_noise.pairs.index import INDEX_NAME
from golden_noise.pairs.order import Split
from golden_noise.pairs.source import ShardSource
from golden_noise.pairs.streaming import StreamingDataModule
from golden_noise.pipelines.lazy import LazyPipeline
from golden_noise.pipelines.loading import model_dtype
from golden_noise.prompts import Prompt
from golden_noise.prompts.job import of_another_pipeline
from golden_noise.sharing.claims import alone
from golden_noise.sharing.environments import environments
from golden_noise.sharing.processes import announcing_a_wait, is_first
from golden_noise.tracking import record
from golden_noise.tracking.loggers import build_loggers, log_config, run_loggers, wandb_run
from golden_noise.tracking.wandb import log_in, report_weights_used, use_artifact, weights_artifact
from golden_noise.training.callbacks import CheckMonitor, SampleGrid, SaveNPNet
from golden_noise.training.card import write_card
from golden_noise.training.checkpoints import LAST, AtomicCheckpointIO, resumable
from golden_noise.training.data import build_data, is_collected, learnt_from
from golden_noise.training.facts import run_facts
from golden_noise.training.messages import without_advertising
from golden_noise.training.module import NPNetModule
from golden_noise.training.score_data import ScoredDataModule
from golden_noise.training.start import check_new, check_precision, trained_before

GRID_PROMPTS = 8
IDENTITY = "identity.json"
ADVICE = "give another name=NAME or delete that folder"


def train(config: DictConfig) -> None:
    """Train, from the run folder's last checkpoint if there is one, save NPNet, and evaluate it.

    Raises:
        UserError: no pairs, pairs of another pipeline, an unsuitable precision, an evaluation that cannot follow, or a
            folder with a training of other settings, a damaged checkpoint, or another process.
    """
    check_accelerator(config.trainer.get("accelerator"))
    if config.evaluate:
        check_prompts(config)  # now rather than after the training
    folder = Path(config.folder)
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder, "training") if is_first() else nullcontext():
        check_settings(config, folder)
        train_alone(config, folder)


def train_alone(config: DictConfig, folder: Path) -> None:
    """`train`, in a folder that no other process uses."""
    without_advertising()
    log_in(config)
    if threads := config.num_threads or (1 if config.pipeline.bundled else None):
        torch.set_num_threads(threads)
    seed_everything(config.seed, workers=True, verbose=False)

    pipeline = LazyPipeline(config.pipeline.model)
    objective: Objective = instantiate(config.objective)
    data = build_data(config, pipeline)
    npnet = build_npnet(config, pipeline)
    if isinstance(data, ScoredDataModule):
        data.read(Origin.of(config, None if config.get("npnet") is None else weights_digest(npnet)))
    optimizer, scheduler = instantiate(config.model.optimizer), instantiate(config.model.scheduler)
    scorers = partial(instantiate, config.metric)
    module = NPNetModule(npnet, optimizer, scheduler, objective, pipeline, scorers)
    checkpoints = Path(OmegaConf.select(config, "callbacks.last.dirpath") or folder / "checkpoints")
    last = resumable(checkpoints, module, config.trainer.max_epochs, config.trainer.get("max_steps"))
    if last is None and (folder / "npnet").exists():
        raise UserError(f"{folder} holds a network, but no checkpoint {checkpoints / LAST} to resume from: {ADVICE}")
    loggers = build_loggers(config)
    callbacks = build_callbacks(config, data, pipeline, logs=bool(loggers))
    plugins = [AtomicCheckpointIO(), *environments(), *instantiate(config.trainer.get("plugins") or [])]
    trainer: Trainer = instantiate(config.trainer, logger=loggers, callbacks=callbacks, plugins=plugins)
    # Before the Trainer does the same for all ranks, so that a run is not logged where the pairs do not fit.
    rank_zero_only(data.prepare_data)()
    rank_zero_only(data.setup)("fit")
    begin(config, folder, data, trainer)
    log_config(trainer.loggers, config)
    with announcing_a_wait("devices=1") as timer:
        trainer.callbacks.append(LambdaCallback(setup=lambda *_, **__: timer.cancel()))  # type: ignore[attr-defined]
        try:
            trainer.fit(module, datamodule=data, ckpt_path=last, weights_only=True)
        except SIGTERMException:  # a SystemExit with code 0
            sys.exit(128 + signal.SIGTERM)
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return  # Lightning saves nothing then
    if trainer.is_global_zero:
        finish(config, folder, trainer, data, pipeline)


def check_accelerator(name: str | None) -> None:
    """Refuse to train on a GPU where there is none, before any work."""
    if name in ("gpu", "cuda") and not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        raise UserError(
            f"trainer.accelerator={name}, but torch finds no GPU here: add trainer.accelerator=cpu, or trainer=ddp_cpu "
            "for two processes"
        )


def check_settings(config: DictConfig, folder: Path) -> None:
    """Refuse to mix with a training of other settings in the folder, before any work."""
    if (old := made_by(folder)) is None:
        return
    pairs = old.get("pairs", {})
    if is_collected(config):  # on demand, so what it will be is known
        pairs = pairs | {"made_by": provenance(config)}
    identity.check(folder, old, run_identity(config, pairs), ADVICE)


def begin(config: DictConfig, folder: Path, data: StreamingDataModule, trainer: Trainer) -> None:
    """Record in the folder what decides the training; refuse a folder with another."""
    if not trainer.is_global_zero:
        return  # only the first rank has looked at the pairs
    new = run_identity(config, learnt_from(data))
    if (old := made_by(folder)) is not None:
        identity.check(folder, old, new, ADVICE)
    write_atomically(folder / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
    if not trainer.fast_dev_run:  # type: ignore[attr-defined]
        record.write(folder, new, IDENTITY)


def run_identity(config: DictConfig, pairs: dict[str, Any]) -> dict[str, Any]:
    """What decides the weights of this training, see `identity.run`."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    dtype = model_dtype(config.pipeline.model, config.device)
    return identity.run(plain, dtype, device_type(config.device), pairs)


def made_by(folder: Path) -> dict[str, Any] | None:
    """The identity of the training in a folder; None if nothing was trained there."""
    if not any((folder / name).exists() for name in ("checkpoints/last.ckpt", "npnet")):
        return None
    if (stored := record.read(folder, IDENTITY)) is not None:
        return stored
    exists = (folder / IDENTITY).exists()
    reason = "is damaged" if exists else "is missing, which earlier versions did not write"
    raise UserError(f"{folder / IDENTITY} {reason}: what trained {folder} is unknown; {ADVICE}")


def build_npnet(config: DictConfig, pipeline: LazyPipeline) -> AnyNPNet:
    """The network of the config, on the pipeline's own denoiser if it shares that."""
    if config.get("npnet") is not None:
        return trained_before(config, pipeline)
    check_new(config)
    npnet = instantiate(config.model.npnet)
    if not isinstance(npnet, partial):
        return npnet
    check_precision(pipeline.loaded)
    return npnet(pipeline.loaded)


def build_callbacks(
    config: DictConfig, data: StreamingDataModule, pipeline: LazyPipeline, logs: bool
) -> list[Callback]:
    """The callbacks of the config; without a logger Lightning refuses to monitor learning rates."""
    chosen = [callback for callback in instantiate(config.callbacks).values() if callback is not None]
    callbacks = [c for c in chosen if logs or not isinstance(c, LearningRateMonitor)]
    if not config.trainer.get("fast_dev_run") and not any(isinstance(callback, SaveNPNet) for callback in callbacks):
        raise UserError("callbacks.save_npnet is missing: nothing would be left of the training")
    callbacks.append(CheckMonitor())
    if config.sample_every_n_epochs:
        folder = Path(config.folder) / "samples"
        callbacks.append(SampleGrid(grid_sampler(config, data, pipeline), folder, config.sample_every_n_epochs))
    return callbacks


def learnt_prompts(config: DictConfig, data: StreamingDataModule, split: Split, count: int) -> list[Prompt]:
    """Prompts of one split of the pairs, with seeds that do not depend on how these were collected."""
    return [Prompt(i, text, config.data_seed + i) for i, text in enumerate(data.prompts(split, count))]


def grid_prompts(config: DictConfig, data: StreamingDataModule) -> list[Prompt]:
    """Held-out prompts: the evaluation's, or the validation pairs' if those are of another pipeline."""
    chosen = config.evaluation.prompts
    if chosen is None or of_another_pipeline(config, chosen):
        return learnt_prompts(config, data, "val", GRID_PROMPTS)
    return instantiate(chosen)[:GRID_PROMPTS]


def grid_sampler(
    config: DictConfig, data: StreamingDataModule, pipeline: LazyPipeline
) -> Callable[[AnyNPNet | None], Tensor]:
    """Draws the first held-out prompts, always from the same noise, with an NPNet or (None) without."""
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


def help_to_evaluate(config: DictConfig, source: str) -> None:
    """Take part in the evaluation that `finish` begins, with the network of a source."""
    pipeline = LazyPipeline(config.pipeline.model)
    npnet = load_npnet(config, source, pipeline)
    evaluate(config, npnet, Path(config.folder) / "evaluation", pipeline, quiet=True)


def finish(
    config: DictConfig, folder: Path, trainer: Trainer, data: StreamingDataModule, pipeline: LazyPipeline
) -> None:
    """Evaluate the best NPNet, write its card and the run's record, and report to the loggers."""
    best = folder / "npnet/best"
    if not best.is_dir():
        raise UserError(f"nothing was trained in {folder}: check trainer.max_epochs={config.trainer.max_epochs}")
    # Published with the weights, so without this machine's paths.
    settings = (folder / "config.yaml").read_text("utf-8").replace(f"{Path.cwd()}/", "")
    write_atomically(best / "training.yaml", settings)
    network = config.model.npnet._target_
    source = str(best) if network.startswith("golden_noise.npnet.") else f"{network}:{best}"
    npnet = load_npnet(config, source, pipeline)
    index: ShardIndex | None = getattr(data, "index", None)
    search = index.config.get("search") if index else None  # of the pairs, whatever the config's search is
    write_card(best, npnet, config, None, search)  # now, in case the evaluation is interrupted
    if config.evaluate:
        learning = partial(learnt_prompts, config, data, "train")
        with sharing(config, help_to_evaluate, source):
            summary = evaluate(config, npnet, folder / "evaluation", pipeline, lambda: trainer.loggers, learning)
        write_card(best, npnet, config, summary, search)
    facts = run_facts(config, trainer, npnet)
    for logger in run_loggers(trainer.loggers):
        logger.log_figures({f"run/{name}": value for name, value in facts.items() if value is not None})
    if run := wandb_run(trainer.loggers):
        report_weights_used(run, trained_folder(config.get("npnet")))
        pairs = ShardSource(config.data_dir)
        if index and not pairs.is_url and (pairs.folder / INDEX_NAME).is_file():
            use_artifact(run, folder_artifact(ShardIndex.load(pairs.folder)))
        run.log_artifact(weights_artifact(best))
    for logger in run_loggers(trainer.loggers):
        logger.finish()
    record.write(folder, facts)
    print(f"NPNet: {best.resolve()}")
