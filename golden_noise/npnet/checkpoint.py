"""NPNets from wherever they are, and to files: diffusers folders, and the forms of published weights."""

import pkgutil
import re
from pathlib import Path
from typing import Any

from diffusers import ModelMixin

from golden_noise.errors import UserError, first_line
from golden_noise.hub import damage, hub_problem, locate, why_missing
from golden_noise.npnet import published
from golden_noise.npnet.denoiser import DenoiserNPNet
from golden_noise.npnet.npnet import NPNet
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.lazy import LazyPipeline

OWN_CLASS = re.compile(r"(?P<name>\w+(\.\w+)+):(?P<place>.+)")
IN_FOLDER = ("config.json", "diffusion_pytorch_model.safetensors")


def load(
    source: str,
    option: str = "npnet",
    pipeline: Pipeline | LazyPipeline | None = None,
    fit: str | None = None,
    attention: bool | None = None,
    target: str | None = None,
) -> NPNet | DenoiserNPNet:
    """Loads any kind of NPNet, in evaluation mode, from wherever it is.

    Args:
        source: a folder written by training (a whole run's stands for its `npnet/best`, a file in it for the folder)
            or a hub id of one, or published weights: a file, or ORG/NAME/FILE on the hub. MODULE.CLASS:FOLDER for a
            network of another class, which no saved file may name: weights come from strangers.
        option: the setting that gave `source`, for errors.
        pipeline: for an NPNet that shares the pipeline's denoiser; not loaded for any other.
        fit: what to do with noise of other sizes, see `NPNet`; None: as saved.
        attention: of published weights, which do not tell, see `published.load`; None: as stored.
        target: likewise.

    Raises:
        UserError: there is no NPNet, or it was built otherwise.
    """
    if not source:
        raise UserError(f"{option} is empty: leave it out, or say where a network is")
    if attention not in (None, True, False):
        raise UserError(f"attention={attention} must be true, false or null")
    built = {name: value for name, value in {"attention": attention, "target": target}.items() if value is not None}
    fits = {"fit": fit} if fit else {}
    if own := OWN_CLASS.fullmatch(source):
        npnet = _load_own(own["name"], own["place"], option, **fits)
        built |= fits  # diffusers passes over options that a class does not have
    elif _is_weights(source, option):
        return published.load(source, option, **fits, **built)
    else:
        npnet = _load_folder(source, option, pipeline, fits)
    for name, value in built.items():
        if name not in npnet.config:
            raise UserError(f"{name}={value}: {source} is a network without that option, leave it out")
        if npnet.config[name] != value:
            have = npnet.config[name]
            raise UserError(f"{name}={value}: {source} says itself that it has {name}={have}, leave {name} out")
    return npnet


def _is_weights(source: str, option: str) -> bool:
    """Whether it is a file of published weights; any file is taken for one but those of a diffusers folder."""
    try:
        file = Path(source).expanduser()
        exists = file.is_file()
    except (OSError, RuntimeError) as error:  # a name that is too long, or nobody's home
        raise UserError(f"{option}={source} names no place: {first_line(error)}") from error
    if exists:
        return not (file.name in IN_FOLDER and (file.parent / "config.json").is_file())
    return published.is_published(source) and not file.is_dir()


def _load_folder(
    source: str, option: str, pipeline: Pipeline | LazyPipeline | None, options: dict[str, Any]
) -> NPNet | DenoiserNPNet:
    """Loads a diffusers folder or what the hub has of one."""
    file = Path(source).expanduser()
    place = str(file.parent) if file.is_file() else best_of_run(locate(source, option))
    if fault := _folder_damage(place):
        raise UserError(f"no NPNet in {source}: {fault}")
    problem = hub_problem(place)
    cached = problem is not None
    try:
        config = NPNet.load_config(place, local_files_only=cached)
        if isinstance(config, dict) and config.get("_class_name") == DenoiserNPNet.__name__:
            if options:
                raise UserError(
                    f"fit={options['fit']}: {source} shares the pipeline's denoiser and takes any size: leave fit out"
                )
            if pipeline is None:
                raise UserError(
                    f"{option}={source} is a network of model=denoiser_lora, which shares a pipeline's denoiser: add "
                    "model=denoiser_lora to train it, give load() the pipeline in Python, or choose another network"
                )
            return DenoiserNPNet.from_pretrained(place, pipeline.loaded, local_files_only=cached)
        return NPNet.from_pretrained(place, local_files_only=cached, **options)
    except OSError as error:
        raise UserError(
            f"no NPNet in {source} ({why_missing(error, problem)}): give {option} outputs/train/RUN, a hub id, or "
            "published weights (FILE.pth, FILE.safetensors, ORG/NAME/FILE)"
        ) from error


def _folder_damage(place: str) -> str | None:
    """What makes the files of a diffusers folder useless at first sight."""
    return next(filter(None, (damage(file) for name in IN_FOLDER if (file := Path(place) / name).is_file())), None)


def best_of_run(place: str) -> str:
    """The folder of the best NPNet where `place` is the folder of a training run, else `place` itself."""
    inside = [Path(place), Path(place) / "npnet/best", Path(place) / "best"]
    return str(next((folder for folder in inside if (folder / "config.json").is_file()), place))


def _load_own(name: str, source: str, option: str, **options: Any) -> Any:
    """Loads a network of a class that the user names: a diffusers model with `golden(noise, prompt)`."""
    try:
        kind: Any = pkgutil.resolve_name(name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{option}={name}:{source}: {error}; is its folder in PYTHONPATH?") from error
    is_network = isinstance(kind, type) and issubclass(kind, ModelMixin) and callable(getattr(kind, "golden", None))
    if not is_network:
        raise UserError(f"{option}={name}:{source}: {name} is no diffusers ModelMixin with golden(noise, prompt)")
    place = best_of_run(locate(source, option))
    if fault := _folder_damage(place):
        raise UserError(f"no {name} in {source}: {fault}")
    problem = hub_problem(place)
    try:
        return kind.from_pretrained(place, local_files_only=problem is not None, **options).eval()
    except OSError as error:
        reason = why_missing(error, problem)
        raise UserError(f"no {name} in {source} ({reason}): give {option} the folder of one") from error


def save(npnet: NPNet, target: str) -> None:
    """Saves an NPNet: `.pth` as the authors do, `.safetensors` as the community does, anything else as a folder.

    Raises:
        UserError: the published forms cannot hold this NPNet.
    """
    if published.is_published(target):
        published.save(npnet, Path(target))
    elif Path(target).is_file():
        raise UserError(f"{target} is a file: give a folder, or a name that ends in .pth or .safetensors")
    else:
        npnet.save_pretrained(target)
