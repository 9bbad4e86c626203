"""Checks of a composed config that need no model: what can be wrong is said before anything is loaded."""

import math
import re
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf

from golden_noise.cli.resolvers import accelerator
from golden_noise.collecting.selection import Selection
from golden_noise.errors import UserError
from golden_noise.evaluation.choices import check_constant
from golden_noise.hub import looks_local
from golden_noise.prompts.job import of_another_pipeline
from golden_noise.sharing.processes import per_machine, started_several_times

#: Whole numbers and their least and greatest values; None: no limit.
WHOLE: dict[str, tuple[int, int | None]] = {
    "seed": (0, 2**32 - 1),  # more bits would not change the noise: torch's CPU generator reads 32
    "images_per_prompt": (1, None),
    "batch_size": (1, None),
    "data_seed": (0, 2**32 - 1),
    "prompts.count": (1, None),
    "prompts.seed": (0, 2**32 - 1),
    "collection.batch_size": (1, None),
    "collection.shard_size": (1, None),
    "collection.failures_in_a_row": (1, None),
    "fabric.num_nodes": (1, None),
    "data.batch_size": (1, None),
    "data.embeds_cache": (0, None),
    "data.shuffle_shards": (0, None),
    "data.num_workers": (0, None),
    "data.prefetch_factor": (1, None),
    "evaluation.batch_size": (1, None),
    "evaluation.prompts.count": (1, None),
    "evaluation.best_of.count": (2, None),
    "evaluation.constant.count": (1, None),
    "evaluation.constant.prompts.count": (1, None),
    "evaluation.prompts.seed": (0, 2**32 - 1),
    "pipeline.steps": (1, 1000),  # a schedule has no more levels
    "pipeline.model.steps": (1, 1000),
    "search.steps": (1, 1000),
    "search.rounds": (1, None),
    "search.refinements": (0, None),
    "search.n": (1, None),
    "sample_every_n_epochs": (0, None),
    "num_threads": (1, None),
    "trainer.max_epochs": (-1, None),
}
#: Other numbers, likewise.
REAL: dict[str, tuple[float | None, float | None]] = {
    "collection.margin": (None, None),
    "data.val_fraction": (0, 1),
    "pipeline.guidance": (None, None),
    "pipeline.guidance_rescale": (0, 1),
    "search.denoising_guidance": (None, None),
    "search.inversion_guidance": (None, None),
    "search.factor": (None, None),
    "search.ratio": (0, 1),
    "model.optimizer.lr": (0, None),
}
MODES = ("resume", "extend", "retry", "overwrite")  # of collect.py
SWITCHES = ("evaluate", "collection.store_embeds", "data.persistent_workers", "data.pin_memory")
TEXT = ("name", "data_dir", "folder", "paths.outputs", "pipeline.model.source", "npnet")
EMPTY = ("pipeline.negative_prompt",)  # text that may be empty
OPTIONAL = ("num_threads", "npnet", "trainer.max_epochs")  # null, too
NOISES = ("standard", "golden", "search")
ABSENT = object()
RECIPE_KEY = re.compile(r"[+~]*pipeline\.recipe\.(\w+)")  # of an override
RECIPE_READ = re.compile(r"\$\{(?:oc\.select:)?pipeline\.recipe(?:\.(\w+))?")  # of an interpolation


def check(config: DictConfig) -> None:
    """Check a resolved job config.

    Raises:
        UserError: the first thing that cannot work, with the option's name and what it may be.
    """
    _check_parts(config)
    _check_resolution(config.pipeline)
    _check_kinds(config)
    _check_schedule(config)
    _check_prompts(config)
    if config.job == "generate":
        _check_images(config)
    _check_metrics(config)
    _check_selection(config)
    check_constant(config)
    _check_mode(config)
    _check_recipe(config)
    if config.job in ("train", "evaluate", "generate"):
        _check_name(config)
    if config.job == "train":
        _check_processes(config)


def _check_parts(config: DictConfig) -> None:
    """What every job reads is there, and of the right form."""
    needs = ("pipeline", "pipeline.model", "search")
    for part in needs[:2] if config.job == "generate" and "search" not in _drawn(config) else needs:
        if not isinstance(OmegaConf.select(config, part), DictConfig):
            raise UserError(f"{part} is missing: {config.job}.py cannot do without")
    accelerator(config.device)
    if not isinstance(batches := config.pipeline.get("batch_size", {}), DictConfig | dict):
        raise UserError(
            f"pipeline.batch_size={batches} must say it for each job: pipeline.batch_size.evaluate={batches}, likewise "
            "collect and generate"
        )


def _drawn(config: DictConfig) -> list[str]:
    noise = _plain(config.noise)
    return [noise] if isinstance(noise, str) else list(noise or ())


def _check_name(config: DictConfig) -> None:
    """Processes that Lightning does not start itself each compose the config: the time would give each a folder."""
    folder_given = HydraConfig.initialized() and any(
        text.startswith("hydra.run.dir=") for text in HydraConfig.get().overrides.hydra
    )
    raw: Any = OmegaConf.to_container(config, resolve=False)
    several = started_several_times() or _select_nodes(config) > 1
    if several and "${now:" in str(raw["name"]) and not folder_given:
        raise UserError(
            "torchrun, SLURM and num_nodes start several processes, which need one run folder: add name=NAME; "
            "started again with it, the run goes on"
        )


def _select_nodes(config: DictConfig) -> int:
    return (config.trainer if config.job == "train" else config.fabric).get("num_nodes", 1)


def _check_processes(config: DictConfig) -> None:
    """Lightning would say so in a traceback of every process, and late."""
    started, devices = per_machine(0), config.trainer.devices
    if started_several_times() and started and isinstance(devices, int) and devices != started and devices > 1:
        raise UserError(f"devices={devices}, but torchrun or SLURM start {started} processes here: leave devices out")


def _check_kinds(config: DictConfig) -> None:
    """Every option of the tables above is of its kind, as far as the job has it.

    Raises:
        UserError: the first one that is not.
    """
    for kind, name, limits in ((int, "a whole number", WHOLE), ((int, float), "a number", REAL)):
        for option, (least, most) in limits.items():
            value = _select(config, option)
            if value is not ABSENT and not (_is_number(value, kind) and _within(value, least, most)):
                raise UserError(f"{option}={_shown(value)} must be {name}{_bounds(least, most)}")
    for option in SWITCHES:
        value = _select(config, option)
        if value is not ABSENT and not isinstance(value, bool):
            raise UserError(f"{option}={_shown(value)} must be true or false")
    for option in TEXT:
        value = _select(config, option)
        if value is not ABSENT and not (isinstance(value, str) and value.strip()):
            raise UserError(f"{option}={_shown(value)} must be a path or a name, in quotation marks if it is a number")
    for option in EMPTY:
        value = _select(config, option)
        if value is not ABSENT and not isinstance(value, str):
            raise UserError(f"{option}={_shown(value)} is no text: quote it twice, '{option}=\"{_shown(value)}\"'")


def _is_number(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)


def _within(value: float, least: float | None, most: float | None) -> bool:
    return (least is None or value >= least) and (most is None or value <= most)


def _bounds(least: float | None, most: float | None) -> str:
    if most is not None:
        return f" from {least} to {most}"
    return "" if least is None else f" >= {least}"


def _select(config: DictConfig, option: str) -> Any:
    value = OmegaConf.select(config, option, default=ABSENT)
    return ABSENT if value is None and option in OPTIONAL else value


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)


def _check_resolution(pipeline: DictConfig) -> None:
    for side in ("height", "width"):
        value = pipeline[side]
        multiple = pipeline.get("size_multiple", 8)
        if not isinstance(value, int) or value < multiple or value % multiple:
            raise UserError(f"pipeline.{side}={value} must be a positive multiple of {multiple}")
    native = tuple(pipeline.get("trained_size") or ())
    if native and native != (pipeline.height, pipeline.width):
        raise UserError(
            f"pipeline={pipeline.name} draws {native[0]}x{native[1]} only, not {pipeline.height}x{pipeline.width}"
        )


def _check_selection(config: DictConfig) -> None:
    trains = config.job == "train" and config.pipeline.bundled  # train.py collects the miniature's pairs only
    if config.job == "collect" or trains:
        options: Any = OmegaConf.to_container(config.collection, resolve=True)
        Selection.parse(options["select_by"], options["margin"], list(config.metric))


def _check_images(config: DictConfig) -> None:
    """What generate.py draws: prompts from one place, seeds, and kinds of noise."""
    prompt, seeds, noise = config.prompt, _plain(config.seeds), _plain(config.noise)
    if prompt is not None and "prompts" in config:
        raise UserError("prompt and prompts are both given: choose one")
    if "prompts" not in config and not (isinstance(prompt, str) and prompt.strip()):
        raise UserError(
            'no prompt: add prompt="a red circle", prompts=file prompts.path=FILE, or a set such as prompts=shapes_test'
        )
    if seeds is not None and not (
        isinstance(seeds, list) and seeds and all(_is_number(s, int) and 0 <= s < 2**32 for s in seeds)
    ):
        raise UserError(f"seeds={_shown(seeds)} must be a list of whole numbers from 0 to {2**32 - 1}, such as [1,2,3]")
    if seeds is not None and (config.images_per_prompt > 1 or len({*seeds}) < len(seeds)):
        raise UserError(f"seeds={_shown(seeds)}: give every seed once, and no images_per_prompt beside them")
    kinds = [noise] if isinstance(noise, str) else noise
    if not (isinstance(kinds, list) and kinds and all(kind in NOISES and kinds.count(kind) == 1 for kind in kinds)):
        raise UserError(f"noise={_shown(noise)} must be one of {', '.join(NOISES)}, or several as noise=[A,B]")


def _check_schedule(config: DictConfig) -> None:
    """A schedule that no search can invert is refused before anything is fetched, where the config shows it."""
    option = "pipeline.model.scheduler.timestep_spacing"
    searches = config.job == "collect" and "steps" in config.search  # the other searches only draw images
    if searches and OmegaConf.select(config, option) == "linspace":
        raise UserError(f"{option}=linspace cannot be inverted by a search: take leading or trailing")


def _check_mode(config: DictConfig) -> None:
    if "mode" in config and config.mode not in MODES:
        raise UserError(f"mode={config.mode} must be one of {', '.join(MODES)}")


def _check_metrics(config: DictConfig) -> None:
    """A metric's missing files are noticed before gigabytes of another model are fetched."""
    for name, options in (config.get("metric") or {}).items():
        for option, value in options.items():
            if isinstance(value, str) and looks_local(value) and not Path(value).expanduser().exists():
                raise UserError(
                    f"metric.{name}.{option}={value} does not exist: give a path on this machine or a hub id"
                )


def _check_prompts(config: DictConfig) -> None:
    used = "evaluation.prompts" if config.job == "evaluate" else "prompts"
    others = of_another_pipeline(config, OmegaConf.select(config, used))
    if others and config.job in ("collect", "evaluate"):
        raise UserError(
            f"pipeline={config.pipeline.name} needs prompts of its own: add prompts=file prompts.path=FILE "
            "(.csv, .jsonl or .txt) and a metric such as metric=pickscore"
        )
    drawn = config.job == "train" and config.evaluate and config.evaluation.get("images") is None
    if drawn and of_another_pipeline(config, config.evaluation.prompts):
        raise UserError(
            f"evaluate=true with pipeline={config.pipeline.name} needs held-out prompts of its own: add "
            "prompts@evaluation.prompts=file evaluation.prompts.path=FILE and a metric such as metric=pickscore, or "
            "evaluate=false"
        )


def _check_recipe(config: DictConfig) -> None:
    """Every key of the recipe that the command line sets is one that the composed config reads.

    Raises:
        UserError: the chosen network or data have no use for it.
    """
    if config.job != "train" or not HydraConfig.initialized():
        return
    set_keys = [RECIPE_KEY.match(override) for override in HydraConfig.get().overrides.task]
    raw: Any = OmegaConf.to_container(config, resolve=False)
    recipe = raw["pipeline"].pop("recipe", {})
    read = {*RECIPE_READ.findall(str(raw))}
    for found in set_keys:
        if found and found[1] not in read and "" not in read:
            useful = ", ".join(f"pipeline.recipe.{key}" for key in recipe if key in read)
            model = HydraConfig.get().runtime.choices.get("model")
            raise UserError(f"{found[0]} has no effect: model={model} and these settings read only {useful}")


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if isinstance(value, ListConfig) else value
