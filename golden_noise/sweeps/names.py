"""Names of a sweep's folder and of its jobs' folders, the same for the same command."""

import hashlib
import re
from collections.abc import Mapping

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from golden_noise.cli.arguments import parsed
from golden_noise.errors import UserError
from golden_noise.invocation import arguments

LONGEST = 120  # characters of a folder's name
#: Settings of how many jobs a sweep has and how they run, not of the jobs.
OF_THE_SWEEP = ("hydra.launcher.", "hydra.sweeper.n_")


def sweep_name(name: str, *, _root_: DictConfig) -> str:
    """Name of the sweep's folder: the given one, else one made from the command line."""
    if _root_.hydra.get("mode") == RunMode.MULTIRUN and arguments() and not _settings():
        raise UserError("this launcher needs hydra.sweep.dir=FOLDER")
    settings = sorted(text for text in _settings() if not text.startswith(OF_THE_SWEEP))
    if any(text.startswith("name=") for text in settings):
        return name
    keys = "-".join(key.rpartition(".")[2] for key in _swept(_root_))
    return f"sweep-{keys}-{_digest(' '.join(settings))}"


def job_folder(*, _root_: DictConfig) -> str:
    """Name of a job's folder: its values of what varies in the sweep, such as `model=unet,seed=1`."""
    keys = _swept(_root_)
    text = ",".join(o for o in _root_.hydra.overrides.task if (p := parsed(o)) and p.get_key_element() in keys)
    short = re.sub(r"[^\w.+=,@-]+", "_", text)[:LONGEST]
    return (short if short == text else f"{short}-{_digest(text)}") or str(_root_.hydra.job.num)


def _swept(root: DictConfig) -> list[str]:
    """Keys that have several values, in the order of the command line."""
    params: Mapping[str, str] = OmegaConf.select(root, "hydra.sweeper.params") or {}
    overrides = (parsed(text) for text in [*(f"{k}={v}" for k, v in params.items()), *_settings()])
    return list(dict.fromkeys(o.get_key_element() for o in overrides if o and o.is_sweep_override()))


def _settings() -> list[str]:
    return [argument for argument in arguments() if "=" in argument and not argument.startswith("-")]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


OmegaConf.register_new_resolver("sweep_name", sweep_name, replace=True)
OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)
