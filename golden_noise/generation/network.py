"""The NPNet that a job's config names."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from golden_noise.device import pick_device
from golden_noise.errors import UserError
from golden_noise.hub import in_run
from golden_noise.npnet import AnyNPNet, checkpoint
from golden_noise.npnet.fitting import check_fits
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.lazy import LazyPipeline


def load_npnet(config: DictConfig, source: str | None, pipeline: Pipeline | LazyPipeline) -> AnyNPNet:
    """Load an NPNet, trained here or published, and check that it fits the pipeline.

    Args:
        source: a folder, hub id or file; None if the pipeline has no NPNet of its own and none was given.
        pipeline: loaded only if the NPNet shares its denoiser.

    Raises:
        UserError: there is none, or it was made for other shapes.
    """
    if source is None:
        raise UserError(
            f"pipeline={config.pipeline.name} has no NPNet of its own: give npnet=FOLDER from a training run"
        )
    options = {name: OmegaConf.select(config, name) for name in ("fit", "long_prompt", "attention", "target")}
    npnet = checkpoint.load(source, "npnet", pipeline, **options)
    own = config.pipeline
    check_fits(npnet, source, f"pipeline={own.name}", own.latent_shape, own.embeds_shape, own.prompt_chunks > 1)
    # Lightning leaves the network on the CPU, and with it a pipeline that shares its denoiser.
    return npnet.to(pick_device(config.device))


def trained_folder(source: str | None) -> Path | None:
    """The folder of a trained NPNet that a setting names, as itself or as its run's; None for anything else."""
    config = in_run(source, "config.json")
    return config.parent if config else None
