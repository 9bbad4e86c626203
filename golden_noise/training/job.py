"""The train job: noise pairs become an NPNet, which is then compared on held-out prompts."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import torch
from hydra.utils import instantiate
from lightning import Callback, LightningDataModule, Trainer, seed_everything
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from golden_noise import record
from golden_noise.collection import collect, pipeline_identity
from golden_noise.errors import UserError
from golden_noise.evaluation.compare import check_methods, evaluate, load_npnet
from golden_noise.noise import draw_noise, sampler_generators
from golden_noise.npnet import AnyNPNet
from golden_noise.pipelines.base import Pipeline
from golden_noise.tracking import build_loggers, log_config, log_in, report_training, report_weights_used, wandb_run
from golden_noise.training.callbacks import SampleGrid
from golden_noise.training.card import write_card
from golden_noise.training.module import NPNetModule
from golden_noise.training.record import describe
from golden_noise.training.start import check_new, check_precision, trained_before

GRID_PROMPTS = 8

LoadPipeline = Callable[[], Pipeline]


def train(config: DictConfig) -> None:
    """Train, from the run folder's last checkpoint if there is one, save NPNet, and evaluate it.

    Raises:
        UserError: no pairs, pairs of another pipeline, a precision that cannot be trained in, or an evaluation that
            cannot follow.
    """
    if config.evaluate and config.evaluation.get("images") is None:
        check_methods(config)  # now rather than after the training
    log_in(config)
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    seed_everything(config.seed, workers=True, verbose=False)
    folder = Path(config.folder)
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, folder / "config.yaml", resolve=True)

    load_pipeline: LoadPipeline = cache(partial(instantiate, config.pipeline.model))
    data = build_data(config, load_pipeline)
    module = NPNetModule(
        build_npnet(config, load_pipeline),
        instantiate(config.model.optimizer),
        instantiate(config.model.scheduler),
    )
    loggers = build_loggers(config)
    trainer: Trainer = instantiate(config.trainer, logger=loggers, callbacks=build_callbacks(config, load_pipeline))
    # Before the Trainer does the same for all ranks, so that a run is not logged where the pairs do not fit.
    rank_zero_only(data.prepare_data)()
    rank_zero_only(data.setup)("fit")
    log_config(trainer.loggers, config)
    last = folder / "checkpoints/last.ckpt"
    trainer.fit(module, datamodule=data, ckpt_path=last if last.exists() else None, weights_only=True)
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return  # Lightning saves nothing then
    if trainer.is_global_zero:
        finish(config, folder, trainer, load_pipeline)


def build_npnet(config: DictConfig, load_pipeline: LoadPipeline) -> AnyNPNet:
    """The network of the config, on the pipeline's own denoiser if it is one that shares it."""
    if config.get("npnet") is not None:
        return trained_before(config, load_pipeline)
    check_new(config)
    npnet = instantiate(config.model.npnet)
    if not isinstance(npnet, partial):
        return npnet
    check_precision(load_pipeline())
    return npnet(load_pipeline())


def build_data(config: DictConfig, load_pipeline: LoadPipeline) -> LightningDataModule:
    """The pairs; the miniature's are collected when they are missing."""
    choices = f"pipeline={config.pipeline.name} prompts=file prompts.path=FILE data_dir={config.data_dir}"
    return instantiate(
        config.data,
        collect=cache(partial(collect, config)) if config.pipeline.bundled else None,  # once, also for the Trainer
        collect_hint=f"python collect.py {choices}",
        pipeline=pipeline_identity(config),
        encode=lambda prompts: load_pipeline().encode(prompts),  # loaded if a batch needs it
    )


def build_callbacks(config: DictConfig, load_pipeline: LoadPipeline) -> list[Callback]:
    callbacks = list(instantiate(config.callbacks).values())
    if config.sample_every_n_epochs:
        folder = Path(config.folder) / "samples"
        callbacks.append(SampleGrid(grid_sampler(config, load_pipeline), folder, config.sample_every_n_epochs))
    return callbacks


def grid_sampler(config: DictConfig, load_pipeline: LoadPipeline) -> Callable[[AnyNPNet | None], Tensor]:
    """Draws the first held-out prompts, always from the same noise, through an NPNet or (None) as it is."""
    prompts = instantiate(config.evaluation.prompts)[:GRID_PROMPTS]
    seeds = [prompt.seed for prompt in prompts]

    def sample(npnet: AnyNPNet | None) -> Tensor:
        pipeline = load_pipeline()
        embedding = pipeline.encode([prompt.text for prompt in prompts])
        latents = draw_noise(seeds, pipeline.latent_shape)
        if npnet is not None:
            latents = npnet.golden(latents, embedding)
        return pipeline.sample(embedding, latents, generator=sampler_generators(seeds))

    return sample


def finish(config: DictConfig, folder: Path, trainer: Trainer, load_pipeline: LoadPipeline) -> None:
    """Evaluate the best NPNet, record what the run was, and say where everything is."""
    run = wandb_run(trainer.loggers)
    best = folder / "npnet/best"
    if not best.is_dir():
        raise UserError(f"nothing was trained in {folder}: check trainer.max_epochs={config.trainer.max_epochs}")
    # What may be published with the weights says nothing about the machine.
    settings = (folder / "config.yaml").read_text().replace(f"{Path.cwd()}/", "")
    (best / "training.yaml").write_text(settings)
    kind = config.model.npnet._target_
    source = str(best) if kind.startswith("golden_noise.npnet.") else f"{kind}:{best}"
    npnet = load_npnet(config, source, load_pipeline)
    write_card(best, npnet, config, None)  # there is one even if the evaluation is interrupted
    if config.evaluate:
        summary = evaluate(config, npnet, folder / "evaluation", load_pipeline, lambda: run)
        write_card(best, npnet, config, summary)
    described = describe(config, trainer, npnet)
    if run:
        run.summary.update({f"run/{name}": value for name, value in described.items() if value is not None})
        report_weights_used(run, config.get("npnet"))
        report_training(run, config.data_dir, best)
        run.finish()
    record.write(folder, described)
    print(f"NPNet: {best.resolve()}")
