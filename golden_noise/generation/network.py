"""The NPNet that a job's config names."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from golden_noise.device import pick_device
from golden_noise.errors import UserError
from golden_noise.hub import in_run
from golden_noise.npnet import AnyNPNet, LowFrequencyNPNet, NPNet, checkpoint
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
    if isinstance(npnet, NPNet | LowFrequencyNPNet):
        check_shapes(npnet, source, config)
    # Lightning leaves the network on the CPU, and with it a pipeline that shares its denoiser.
    return npnet.to(pick_device(config.device))


def check_shapes(npnet: NPNet | LowFrequencyNPNet, source: str, config: DictConfig) -> None:
    """Refuse a network that was made for other shapes than the pipeline's and may not be used at them."""
    have, want = npnet.latent_shape, tuple(config.pipeline.latent_shape)
    if isinstance(npnet, LowFrequencyNPNet):
        fits, hint = npnet.takes(want), f"heights and widths may differ, and must be at least {npnet.modes}"
    else:
        fits = have == want or (npnet.fit != "exact" and have[0] == want[0])
        hint = "other heights and widths need fit=tile, fit=crop or fit=resize"
    if not fits:
        raise UserError(
            f"the NPNet in {source} has latent_shape {have}, pipeline={config.pipeline.name} needs {want}: {hint}"
        )
    have, want = npnet.embeds_shape, tuple(config.pipeline.embeds_shape)
    longer = config.pipeline.prompt_chunks > 1 and want[0] > have[0] and have[1] == want[1]  # see `long_prompt`
    if have != want and not longer:
        raise UserError(f"the NPNet in {source} has embeds_shape {have}, pipeline={config.pipeline.name} needs {want}")


def trained_folder(source: str | None) -> Path | None:
    """The folder of a trained NPNet that a setting names, as itself or as its run's; None for anything else."""
    config = in_run(source, "config.json")
    return config.parent if config else None
