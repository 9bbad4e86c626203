"""The NPNet that a job's config names."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from golden_noise.device import pick_device
from golden_noise.errors import UserError
from golden_noise.npnet import AnyNPNet, NPNet, checkpoint
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.lazy import LazyPipeline


def load_npnet(config: DictConfig, source: str | None, pipeline: Pipeline | LazyPipeline) -> AnyNPNet:
    """Load an NPNet, written by training or published, and check that it fits the pipeline.

    Args:
        source: a folder, hub id or file; None where the pipeline has no NPNet of its own and none was given.
        pipeline: whose denoiser some NPNets share; not loaded for any other.

    Raises:
        UserError: there is none, or it was made for other shapes.
    """
    if source is None:
        raise UserError(
            f"pipeline={config.pipeline.name} has no NPNet of its own: give npnet=FOLDER from a training run"
        )
    told = {name: OmegaConf.select(config, name) for name in ("fit", "attention", "target")}
    npnet = checkpoint.load(source, "npnet", pipeline, **told)
    if isinstance(npnet, NPNet):
        check_shapes(npnet, source, config)
    # Lightning leaves what it trained on the CPU, and with it a pipeline that shares its denoiser.
    return npnet.to(pick_device(config.device))


def check_shapes(npnet: NPNet, source: str, config: DictConfig) -> None:
    """Check that a network was made for the pipeline's shapes, or may be used at them.

    Raises:
        UserError: it was not.
    """
    have, want = npnet.latent_shape, tuple(config.pipeline.latent_shape)
    if have != want and (npnet.fit == "exact" or have[0] != want[0]):
        raise UserError(
            f"the NPNet in {source} has latent_shape {have}, pipeline={config.pipeline.name} needs {want}: "
            "other heights and widths need fit=tile, fit=crop or fit=resize"
        )
    have, want = npnet.embeds_shape, tuple(config.pipeline.embeds_shape)
    if have != want:
        raise UserError(f"the NPNet in {source} has embeds_shape {have}, pipeline={config.pipeline.name} needs {want}")


def trained_folder(source: str | None) -> Path | None:
    """The folder of a trained NPNet that a setting names, as itself or as its run's; None for anything else."""
    folder = Path(checkpoint.best_of_run(str(Path(source).expanduser()))) if source else None
    return folder if folder and (folder / "config.json").is_file() else None
