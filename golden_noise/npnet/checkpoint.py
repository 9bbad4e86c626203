"""NPNets from wherever they are, and to files: diffusers folders, and the forms of published weights."""

import pkgutil
import re
from pathlib import Path
from typing import Any

from diffusers import ModelMixin

from golden_noise.errors import UserError, first_line
from golden_noise.hub import damage, hub_problem, in_run, locate, why_missing
from golden_noise.npnet import published
from golden_noise.npnet.denoiser import DenoiserNPNet
from golden_noise.npnet.low_frequency import LowFrequencyNPNet
from golden_noise.npnet.npnet import NPNet
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.lazy import LazyPipeline

OWN_CLASS = re.compile(r"(\w+(?:\.\w+)+):(.+)")
IN_FOLDER = ("config.json", "diffusion_pytorch_model.safetensors")


def load(
    source: str,
    option: str = "npnet",
    pipeline: Pipeline | LazyPipeline | None = None,
    fit: str | None = None,
    attention: bool | None = None,
    target: str | None = None,
) -> NPNet | DenoiserNPNet | LowFrequencyNPNet:
    """Loads an NPNet, in evaluation mode, from wherever it is.

    Args:
        source: a folder written by training (a whole run's stands for its `npnet/best`, a file in it for the folder)
            or a hub id of one, or published weights: a file, or ORG/NAME/FILE on the hub. MODULE.CLASS:FOLDER for a
            network of another class, which no saved file may name: weights come from strangers.
        option: the setting that gave `source`, for errors.
        pipeline: for an NPNet that shares the pipeline's denoiser; not loaded for any other.
        fit: what to do with noise of other sizes, see `NPNet`; None: as saved.
        attention: of published weights, which do not hold it, see `published.load`; None: as stored.
        target: likewise.

    Raises:
        UserError: there is no NPNet, or it was built with other options.
    """
    if not source:
        raise UserError(f"{option} is empty: leave it out, or say where a network is")
    if attention not in (None, True, False):
        raise UserError(f"attention={attention} must be true, false or null")
    built = {name: value for name, value in {"attention": attention, "target": target}.items() if value is not None}
    fits = {"fit": fit} if fit else {}
    if own := OWN_CLASS.fullmatch(source):
        npnet = _load_folder(own[2], option, pipeline, fits, _own_class(own[1], source, option))
        built |= fits  # diffusers ignores options that a class does not have
    elif _is_weights(source, option):
        return published.load(source, option, **fits, **built)
    else:
        npnet = _load_folder(source, option, pipeline, fits)
    for name, value in built.items():
        if name not in npnet.config:
            raise UserError(f"{name}={value}: the network in {source} does not have this option, leave it out")
        if (have := npnet.config[name]) != value:
            raise UserError(f"{name}={value}: {source} itself says {name}={have}, leave {name} out")
    return npnet


def _is_weights(source: str, option: str) -> bool:
    """Whether it is a file of published weights: any file that is not part of a diffusers folder."""
    try:
        file = Path(source).expanduser()
        exists = file.is_file()
    except (OSError, RuntimeError) as error:  # a name that is too long, or nobody's home
        raise UserError(f"{option}={source} is not a path: {first_line(error)}") from error
    if exists:
        return not (file.name in IN_FOLDER and (file.parent / "config.json").is_file())
    return published.is_published(source) and not file.is_dir()


def _load_folder(
    source: str,
    option: str,
    pipeline: Pipeline | LazyPipeline | None,
    options: dict[str, Any],
    network: Any = NPNet,
) -> Any:
    """Loads a network from a folder or the hub. The files say which of this package's classes an NPNet is."""
    file, name = Path(source).expanduser(), network.__name__
    folder = str(file.parent) if file.is_file() else locate(source, option)
    if inside := in_run(folder, IN_FOLDER[0]):
        folder = str(inside.parent)
    for part in IN_FOLDER:
        if fault := damage(Path(folder, part)):
            raise UserError(f"no {name} in {source}: {fault}")
    cached = bool(hub_problem(folder))
    try:
        config = network.load_config(folder, local_files_only=cached)
        saved = config.get("_class_name", name) if network is NPNet and isinstance(config, dict) else name
        if saved not in (name, DenoiserNPNet.__name__, LowFrequencyNPNet.__name__):
            raise UserError(
                f"no NPNet in {source}: it holds a {saved}; a network of your own needs the name of its class, "
                f"{option}=MODULE.{saved}:{source}"
            )
        if network is NPNet and saved != name and options:
            raise UserError(f"fit={options['fit']}: the network in {source} takes any size: leave fit out")
        if network is NPNet and saved == LowFrequencyNPNet.__name__:
            return LowFrequencyNPNet.from_pretrained(folder, local_files_only=cached)
        if network is NPNet and saved == DenoiserNPNet.__name__:
            if pipeline is None:
                raise UserError(
                    f"{option}={source} is a network of model=denoiser_lora, which shares a pipeline's denoiser: add "
                    "model=denoiser_lora to train it, give load() the pipeline in Python, or choose another network"
                )
            return DenoiserNPNet.from_pretrained(folder, pipeline.loaded, local_files_only=cached)
        return network.from_pretrained(folder, local_files_only=cached, **options)
    except OSError as error:
        raise UserError(
            f"no {name} in {source} ({why_missing(error, folder)}): give {option} outputs/train/RUN, a hub id, or "
            "published weights (FILE.pth, FILE.safetensors, ORG/NAME/FILE)"
        ) from error


def _own_class(name: str, source: str, option: str) -> Any:
    """A class that the user names: a diffusers model with `golden(noise, prompt)`."""
    try:
        network = pkgutil.resolve_name(name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{option}={source}: {error}; is its folder in PYTHONPATH?") from error
    is_network = isinstance(network, type) and issubclass(network, ModelMixin) and hasattr(network, "golden")
    if not is_network:
        raise UserError(f"{option}={source}: {name} is not a diffusers ModelMixin with golden(noise, prompt)")
    return network


def save(npnet: NPNet | LowFrequencyNPNet, target: str) -> None:
    """Saves an NPNet: `.pth` as the authors do, `.safetensors` as the community does, anything else as a folder.

    Raises:
        UserError: the published forms cannot hold this NPNet.
    """
    if published.is_published(target):
        if not isinstance(npnet, NPNet):
            raise UserError(f"{target}: a {type(npnet).__name__} has no published form: give a folder")
        published.save(npnet, Path(target))
    elif Path(target).is_file():
        raise UserError(f"{target} is a file: give a folder, or a name that ends in .pth or .safetensors")
    else:
        npnet.save_pretrained(target)
