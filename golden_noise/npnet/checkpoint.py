"""NPNets from wherever they are, and to files: diffusers folders, and single files of every form."""

import pkgutil
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from diffusers import ModelMixin

from golden_noise.errors import UserError, first_line
from golden_noise.hub import damage, download, fetch_file, hub_problem, in_run, locate, why_missing
from golden_noise.npnet.core import saved as core
from golden_noise.npnet.core.build import build
from golden_noise.npnet.core.saved import IN_FOLDER, Saved
from golden_noise.npnet.denoiser import DenoiserNPNet
from golden_noise.npnet.low_frequency import LowFrequencyNPNet
from golden_noise.npnet.npnet import NPNet
from golden_noise.npnet.writing import AUTHORS, ONE_FILE, write

if TYPE_CHECKING:
    from golden_noise.pipelines.base import Pipeline
    from golden_noise.pipelines.lazy import LazyPipeline

OWN_CLASS = re.compile(r"(\w+(?:\.\w+)+):(.+)")


def load(
    source: str,
    option: str = "npnet",
    pipeline: "Pipeline | LazyPipeline | None" = None,
    fit: str | None = None,
    attention: bool | None = None,
    target: str | None = None,
    long_prompt: str | None = None,
) -> NPNet | DenoiserNPNet | LowFrequencyNPNet:
    """Loads an NPNet, in evaluation mode, from wherever it is.

    Args:
        source: a folder written by training (a whole run's stands for its `npnet/best`, a file in it for the folder)
            or a hub id of one, or one file, also ORG/NAME/FILE on the hub: what `convert` wrote, or published weights.
            MODULE.CLASS:FOLDER for a network of another class, which no saved file may name: weights come from
            strangers.
        option: the setting that gave `source`, for errors.
        pipeline: for an NPNet that shares the pipeline's denoiser; not loaded for any other.
        fit: what to do with noise of other sizes, see `NPNet`; None: as saved.
        attention: of published weights, which do not hold it, see `read_file`; None: as stored.
        target: likewise.
        long_prompt: what to do with longer prompts than it was trained on, see `NPNet`; None: as saved.

    Raises:
        UserError: there is no NPNet, or it was built with other options.
    """
    if not source:
        raise UserError(f"{option} is empty: leave it out, or say where a network is")
    if attention not in (None, True, False):
        raise UserError(f"attention={attention} must be true, false or null")
    built = {name: value for name, value in {"attention": attention, "target": target}.items() if value is not None}
    fits = {name: value for name, value in {"fit": fit, "long_prompt": long_prompt}.items() if value}
    if own := OWN_CLASS.fullmatch(source):
        npnet = _load_folder(own[2], option, pipeline, fits, _own_class(own[1], source, option))
        built |= fits  # diffusers ignores options that a class does not have
    elif _is_weights(source, option):
        return _of_file(read_file(source, option, **fits, **built), option, pipeline)
    else:
        npnet = _load_folder(source, option, pipeline, fits)
    core.check_options({"_class_name": None, **npnet.config}, built, source)
    return npnet


def read(source: str, option: str = "npnet", **options: Any) -> Saved:
    """What `load` would load, without building it, so that no network needs a pipeline.

    Args:
        source: as for `load`, but no network of another class.
        option: the setting that gave `source`, for errors.
        options: as for `read_file`.

    Raises:
        UserError: there is no NPNet, or it was built with other options.
    """
    if _is_weights(source, option):
        return read_file(source, option, **options)
    folder = _folder(source, option)
    if folder.is_dir():
        config = in_run(str(folder), IN_FOLDER[0])
    else:
        config, _ = (download(source, name, option) for name in IN_FOLDER)
    folder = config.parent if config else folder
    saved = core.read(folder, source, **options)
    return replace(saved, config=saved.config | _trained_for(folder / "training.yaml"))


def read_file(source: str, option: str = "npnet", **options: Any) -> Saved:
    """What is in one file: one that describes itself, or published weights, whose variant names and shapes tell.

    Args:
        source: a file, whatever its name, or ORG/NAME/FILE on the hub.
        option: the setting that gave `source`, for errors.
        options: those of NPNet that have no weights, and those that no published file holds. `attention=False`: trained
            by the authors' code for `svd_unet+unet`, which leaves attention out yet stores it. `target`: trained by
            that code for `vit` (`absolute`) or for `e_unet` (`difference`). `latent_shape`: not 1024 x 1024 pixels.

    Raises:
        UserError: no such file, it holds anything else, or an option has to be given.
    """
    return core.read(fetch_file(source, option), source, **options)


def save(npnet: NPNet | DenoiserNPNet | LowFrequencyNPNet, target: str) -> None:
    """Saves an NPNet; see `write`."""
    name = type(npnet).__name__
    options = {option: value for option, value in npnet.config.items() if not option.startswith("_")}
    known = {"_class_name": name, "_trained_for": getattr(npnet, "trained_for", {})}
    write(Saved(name, known | options, npnet.state_dict()), target)


def _is_weights(source: str, option: str) -> bool:
    """Whether it is a single file: any that is not part of a diffusers folder."""
    try:
        file = Path(source).expanduser()
        exists = file.is_file()
    except (OSError, RuntimeError) as error:  # a name that is too long, or nobody's home
        raise UserError(f"{option}={source} is not a path: {first_line(error)}") from error
    if exists:
        return not (file.name in IN_FOLDER and (file.parent / IN_FOLDER[0]).is_file())
    return file.suffix.lower() in (*AUTHORS, ONE_FILE) and not file.is_dir()


def _folder(source: str, option: str) -> Path:
    """The folder that a source names, itself or by a file in it, or a hub id."""
    file = Path(source).expanduser()
    return file.parent if file.is_file() else Path(locate(source, option))


def _of_file(saved: Saved, option: str, pipeline: "Pipeline | LazyPipeline | None") -> Any:
    if saved.class_name == DenoiserNPNet.__name__:
        return DenoiserNPNet.from_saved(saved, _needed(pipeline, saved.source, option))
    return build(LowFrequencyNPNet if saved.class_name == LowFrequencyNPNet.__name__ else NPNet, saved)


def _load_folder(
    source: str,
    option: str,
    pipeline: "Pipeline | LazyPipeline | None",
    options: dict[str, Any],
    network: Any = NPNet,
) -> Any:
    """Loads a network from a folder or the hub. The files say which of this package's classes an NPNet is."""
    folder, name = str(_folder(source, option)), network.__name__
    if inside := in_run(folder, IN_FOLDER[0]):
        folder = str(inside.parent)
    for part in IN_FOLDER:
        if fault := damage(Path(folder, part)):
            raise UserError(f"no {name} in {source}: {fault}")
    cached = bool(hub_problem(folder))
    try:
        config = network.load_config(folder, local_files_only=cached)
        saved = config.get("_class_name", name) if network is NPNet and isinstance(config, dict) else name
        if saved not in (name, *core.CLASSES):
            raise UserError(
                f"no NPNet in {source}: it holds a {saved}; a network of your own needs the name of its class, "
                f"{option}=MODULE.{saved}:{source}"
            )
        if network is NPNet:
            core.check_options({"_class_name": saved}, options, source)
        if network is NPNet and saved == LowFrequencyNPNet.__name__:
            return LowFrequencyNPNet.from_pretrained(folder, local_files_only=cached, **options)
        if network is NPNet and saved == DenoiserNPNet.__name__:
            loaded = _needed(pipeline, source, option)
            return DenoiserNPNet.from_pretrained(folder, loaded, local_files_only=cached)
        return network.from_pretrained(folder, local_files_only=cached, **options)
    except OSError as error:
        raise UserError(
            f"no {name} in {source} ({why_missing(error, folder)}): give {option} outputs/train/RUN, a hub id, or "
            "one file of weights (FILE.safetensors, FILE.pth, ORG/NAME/FILE)"
        ) from error


def _needed(pipeline: "Pipeline | LazyPipeline | None", source: str, option: str) -> "Pipeline":
    if pipeline is None:
        raise UserError(
            f"{option}={source} is a network of model=denoiser_lora, which shares a pipeline's denoiser: add "
            "model=denoiser_lora to train it, give load() the pipeline in Python, or choose another network"
        )
    return pipeline.loaded


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


def _trained_for(config: Path) -> dict[str, Any]:
    """The pipeline of a training by its saved config, if there is one."""
    try:
        pipeline = yaml.safe_load(config.read_text("utf-8"))["pipeline"]
        facts = {"pipeline": pipeline["name"], "steps": pipeline["steps"], "guidance": pipeline["guidance"]}
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError):
        return {}
    return {"_trained_for": {name: fact for name, fact in facts.items() if fact is not None}}
