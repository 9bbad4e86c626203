"""What the app is started with: settings as for generate.py, and what they let visitors choose among."""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig

from golden_noise.app.choices import Limits
from golden_noise.cli.config import KEY, job_config
from golden_noise.cli.validation import check
from golden_noise.errors import UserError

#: Settings of generate.py that the app sets itself.
OWN = (
    *("prompts", "seeds", "images_per_prompt", "noise", "noise_file", "save_noise", "search", "experiment"),
    *("name", "folder", "fabric", "layout", "format", "quality"),
)
#: Settings that a visitor's choice replaces: they are only what the page shows at first.
SHOWN = re.compile(r"[+~]*(prompt|seed|strength|npnet|pipeline\.steps|pipeline\.guidance)=")
#: The searches on the page, and the setting that says how long each of them looks.
SEARCHES = {
    "noise_level_guidance": "rounds",
    "redenoise": "rounds",
    "zero_order": "rounds",
    "best_of_n": "n",
    "reno": "iterations",
}
JUDGED = ("zero_order", "best_of_n", "reno")  # they need a reward
FIRST = {True: ("a blue triangle left of a red circle", 3), False: ("a lighthouse at dusk", 0)}  # of the miniature
RUNS = 20  # trainings that are offered, the newest


@dataclass(frozen=True)
class Settings:
    """What the app is started with.

    Attributes:
        config: of generate.py, with references that are not filled in: a visitor's steps and guidance go into it.
        given: the settings that all command lines on the page begin with.
        networks: where each network that is offered is, by name; the first one is shown.
        searches: `search` of each that is offered, by name.
        metrics: names of those that score.
        limits: of what visitors may ask for.
    """

    config: DictConfig
    given: tuple[str, ...]
    networks: dict[str, str]
    searches: dict[str, DictConfig]
    metrics: tuple[str, ...]
    limits: Limits

    @classmethod
    def of(cls, given: Sequence[str], limits: Limits | None = None) -> "Settings":
        """Composes and checks them.

        Raises:
            UserError: a setting that the app sets itself, or one that generate.py would refuse, or no network.
        """
        for override in given:
            if (match := KEY.match(override)) and match[1] in OWN:
                raise UserError(f"{override}: the app sets {match[1]} itself; leave it out")
        config = _composed(given)
        bundled, named = config.pipeline.bundled, {str(override).partition("=")[0] for override in given}
        judged = bundled or "reward" in named  # the default ones judge the miniature only
        names = [name for name in SEARCHES if judged or name not in JUDGED]
        return cls(
            config,
            tuple(override for override in given if not SHOWN.match(override)),
            networks(config),
            _searches(given, names),
            tuple(config.metric) if bundled or "metric" in named else (),
            limits or Limits(),
        )

    def chosen(self, steps: int, guidance: float, search: DictConfig | None = None) -> DictConfig:
        """The config with numbers of a visitor's; nothing else of a visitor's is ever put into a config."""
        config = copy.deepcopy(self.config)
        config.pipeline.steps, config.pipeline.guidance = steps, guidance
        if search is not None:
            config.search = search
        return config


def networks(config: DictConfig) -> dict[str, str]:
    """The networks to choose among: the one that is set, the pipeline's own, and those trained here, the newest first.

    Raises:
        UserError: there is none.
    """
    own, folder = config.pipeline.npnet, Path(config.paths.outputs) / "train"
    found: dict[str, str] = {}
    if config.npnet not in (None, own):
        found[Path(config.npnet).name] = config.npnet
    if own is not None:
        found.setdefault("bundled" if config.pipeline.bundled else "the pipeline's own", own)
    runs = sorted(folder.glob("**/npnet/best/training.yaml"), key=lambda path: path.stat().st_mtime, reverse=True)
    for run in [path.parents[2] for path in runs if _trained_for(path) == config.pipeline.name][:RUNS]:
        found.setdefault(run.relative_to(folder).as_posix(), str(run))
    if not found:
        raise UserError(
            f"pipeline={config.pipeline.name} has no NPNet of its own: add npnet=FOLDER, a hub id or a file"
        )
    return found


def _composed(given: Sequence[str]) -> DictConfig:
    prompted = [] if any(override.startswith("prompt=") for override in given) else [f"prompt={FIRST[True][0]}"]
    config = job_config("generate", [*given, *prompted, "name=app", "folder=app"])
    if prompted and not any(override.startswith("seed=") for override in given):
        config.prompt, config.seed = FIRST[config.pipeline.bundled]
    check(config)
    return config


def _searches(given: Sequence[str], names: Sequence[str]) -> dict[str, DictConfig]:
    """The settings of each search, composed all at once."""
    config = job_config("generate", [*given, *(f"+search@searches.{name}={name}" for name in names)])
    return {name: config.searches[name] for name in names}


def _trained_for(training: Path) -> Any:
    """The name of the pipeline in a training's settings; None if they cannot be read."""
    try:
        return yaml.safe_load(training.read_text("utf-8"))["pipeline"]["name"]
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError):
        return None
