"""Checks of a composed config that need no model, so that mistakes are reported before anything is loaded."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from pydantic import ValidationError

from golden_noise.cli.config import settings_of_choices, suggestion
from golden_noise.cli.schema import JOBS
from golden_noise.collecting.selection import Selection
from golden_noise.errors import UserError
from golden_noise.evaluation.choices import check_evaluation
from golden_noise.hub import looks_local
from golden_noise.prompts.job import of_another_pipeline
from golden_noise.sharing.processes import per_machine, started_several_times
from golden_noise.tracking.packages import check_packages
from golden_noise.urls import check_url

RECIPE_KEY = re.compile(r"[+~]*recipe\.(\w+)")  # of an override
NAMES = {"integer": "an integer", "number": "a number", "boolean": "true or false", "string": "text", "null": "null"}
READ = re.compile(r"\$\{(?:oc\.select:)?\.*([\w.@]+)")  # by an interpolation


def check(config: DictConfig) -> None:
    """Raise UserError for the first thing in a job's config that cannot work."""
    _check_missing(config)
    _check_schema(config)
    _check_urls(config)
    check_packages(config)
    _check_resolution(config.pipeline)
    _check_schedule(config)
    _check_steps(config)
    _check_prompts(config)
    _check_metrics(config)
    if config.job == "evaluate" or (config.job == "train" and config.evaluate):
        check_evaluation(config)
    if config.job == "generate":
        _check_images(config)
    else:
        _check_selection(config)
    if config.job != "collect":
        _check_name(config)
    if config.job == "train":
        _check_recipe(config)
        _check_processes(config)


def _check_missing(config: DictConfig) -> None:
    unused = ("prompts.",) if config.job == "train" and not config.pipeline.get("bundled") else ()
    for key in sorted(OmegaConf.missing_keys(config)):
        if not key.startswith(unused):
            raise UserError(f"{key} is missing: add {key}=VALUE; --help says what it is")


# The schema ----------------------------------------------------------------------------------------------------


def _check_schema(config: DictConfig) -> None:
    plain: Any = OmegaConf.to_container(config, resolve=True)
    model = JOBS[config.job]
    try:
        model.model_validate(plain)
    except ValidationError as error:
        read = _interpolated(config)
        wrong = [each for each in error.errors() if not (each["type"] == "extra_forbidden" and _is_read(each, read))]
        if wrong:
            raise UserError(_mistake(wrong[0], plain, model.model_json_schema(), config.job)) from None


def _mistake(error: Any, plain: dict[str, Any], schema: dict[str, Any], job: str) -> str:
    """One line on a value that the schema does not allow."""
    path = [str(part) for part in error["loc"]]
    key = ".".join(path)
    if error["type"] == "extra_forbidden":
        if key in ("debug", "experiment", "local"):
            names = ", ".join(map(str, error["input"]))
            return f"a file in {key}/ lacks the first line '# @package _global_', so {names} had no effect"
        return f"no setting {key}{suggestion(key, job, _given())}; --help lists all"
    if error["type"] == "missing":
        return f"{key} is missing: {job} needs it"
    value, node, keys = plain, schema, []
    for part in path:  # as far as there are settings: the rest of the path leads into a list or a choice of types
        if not (isinstance(value, dict) and part in value):
            break
        value, node = value[part], _resolved(node, schema)
        node = node.get("properties", {}).get(part) or node.get("additionalProperties", {})
        keys.append(part)
    shown = "null" if value is None else value
    return f"{'.'.join(keys)}={shown} must be {_words(node, schema)}"


def _resolved(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """A node of a JSON schema with its reference followed; of several types the one with settings."""
    if "anyOf" in node:
        node = next((each for each in node["anyOf"] if each.get("type") != "null"), node)
    return schema["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node


def _words(node: dict[str, Any], schema: dict[str, Any]) -> str:
    """What a value may be, from its node of the JSON schema."""
    if "anyOf" in node:
        return " or ".join(_words(each, schema) for each in node["anyOf"])
    if "$ref" in node:
        return f"settings: {', '.join(_resolved(node, schema).get('properties', {}))}"
    if "description" in node:
        return node["description"]
    if "enum" in node:
        return f"one of {', '.join(node['enum'])}"
    if node.get("type") == "array":
        return f"a list, each {_words(node['items'], schema)}"
    words = NAMES.get(node.get("type", ""), "settings")
    if "exclusiveMinimum" in node:
        most = f", at most {node['maximum']:.10g}" if "maximum" in node else ""
        return f"{words} above {node['exclusiveMinimum']:.10g}{most}"
    if "maximum" in node:
        return f"{words} from {node['minimum']:.10g} to {node['maximum']:.10g}"
    return f"{words} >= {node['minimum']:.10g}" if "minimum" in node else words


def _interpolated(config: DictConfig) -> set[str]:
    """The keys that interpolations read, as they are written there."""
    return {*READ.findall(str(OmegaConf.to_container(config, resolve=False)))}


def _is_read(error: Any, read: set[str]) -> bool:
    """Whether an interpolation reads a key that the user added, or a value in it."""
    key = ".".join(map(str, error["loc"]))
    return any(key == each or each.startswith(f"{key}.") or key.endswith(f".{each}") for each in read)


def _given() -> list[str]:
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def _check_urls(config: DictConfig) -> None:
    for name in ("data_dir", "upload"):
        if value := config.get(name):
            check_url(name, str(value))


# Settings that depend on each other ----------------------------------------------------------------------------


def _check_name(config: DictConfig) -> None:
    """Processes that Lightning does not start each compose the config: `${now:}` would give each its own folder."""
    hydra = HydraConfig.get().overrides.hydra if HydraConfig.initialized() else []
    folder_given = any(text.startswith("hydra.run.dir=") for text in hydra)
    raw: Any = OmegaConf.to_container(config, resolve=False)
    nodes = (config.trainer if config.job == "train" else config.fabric).get("num_nodes", 1)
    if (started_several_times() or nodes > 1) and "${now:" in str(raw["name"]) and not folder_given:
        raise UserError(
            "torchrun, SLURM and num_nodes start several processes, which need one run folder: add name=NAME; "
            "rerunning with it resumes the run"
        )


def _check_processes(config: DictConfig) -> None:
    """Lightning reports this late, with a traceback from every process."""
    started, devices = per_machine(0), config.trainer.devices
    if started_several_times() and started and isinstance(devices, int) and devices != started and devices > 1:
        raise UserError(f"devices={devices}, but torchrun or SLURM start {started} processes here: remove devices")


def _check_resolution(pipeline: DictConfig) -> None:
    multiple = pipeline.get("size_multiple", 8)
    for side in ("height", "width"):
        if pipeline[side] % multiple:
            raise UserError(f"pipeline.{side}={pipeline[side]} must be a positive multiple of {multiple}")
    native = tuple(pipeline.get("trained_size") or ())
    if native and native != (pipeline.height, pipeline.width):
        raise UserError(
            f"pipeline={pipeline.name} draws {native[0]}x{native[1]} only, not {pipeline.height}x{pipeline.width}"
        )


def _check_selection(config: DictConfig) -> None:
    trains = config.job == "train" and config.pipeline.bundled  # train collects the miniature's pairs only
    if config.job == "collect" or trains:
        options: Any = OmegaConf.to_container(config.collection, resolve=True)
        Selection.parse(options["select_by"], options["margin"], list(config.metric))


def _check_images(config: DictConfig) -> None:
    """Check what generate draws: one source of prompts, each seed and each noise once."""
    prompt = config.prompt
    if prompt is not None and "prompts" in config:
        raise UserError("prompt and prompts are both given: choose one")
    if "prompts" not in config and not (prompt or "").strip():
        raise UserError(
            'no prompt: add prompt="a red circle", prompts=file prompts.path=FILE, or a set such as prompts=shapes_test'
        )
    for name in ("seeds", "noise"):
        values = config[name]
        if not isinstance(values, str | None) and not 0 < len({*values}) == len(values):
            raise UserError(f"{name}={values} must list at least one value, each once")
    chosen = [config.noise] if isinstance(config.noise, str) else config.noise
    if "candidates" in chosen and (config.noise_file is not None or config.strength != 1):
        raise UserError(
            "noise=candidates needs the noise of the seeds and strength=1, as the training that reads their scores: "
            "leave noise_file and strength out"
        )
    if config.seeds is not None and config.images_per_prompt > 1:
        raise UserError(f"seeds={config.seeds} and images_per_prompt={config.images_per_prompt}: give one of them")
    if config.format == "png" and config.quality is not None:
        raise UserError(f"quality={config.quality} has no effect: PNG files are exact; add format=jpg or format=webp")
    if config.layout != "flat" and config.format != "png":
        raise UserError(f"layout={config.layout} needs format=png: its evaluators read no .{config.format} files")


def _check_schedule(config: DictConfig) -> None:
    """Refuse a schedule that no search can invert before anything is downloaded."""
    option = "pipeline.model.scheduler.timestep_spacing"
    searches = config.job == "collect" and "steps" in config.search  # the other searches only draw images
    if searches and OmegaConf.select(config, option) == "linspace":
        raise UserError(f"{option}=linspace cannot be inverted by a search: use leading or trailing")


def _check_steps(config: DictConfig) -> None:
    """Refuse gradients or a look at more steps than there are before a model is loaded."""
    groups = {"objective": config.get("objective"), "search": config.get("search")}
    searches = OmegaConf.select(config, "evaluation.searches") or {}
    groups |= {f"evaluation.searches.{name}": search for name, search in searches.items()}
    for key, options in [found for name, group in groups.items() for found in _with_inner(name, group)]:
        for option in ("jacobian_steps", "preview_steps"):
            wanted, steps = options.get(option), options.get("steps") or config.pipeline.steps
            if isinstance(wanted, int) and wanted > steps:
                raise UserError(f"{key}.{option}={wanted} must be at most the number of steps, {steps}, or null")


def _with_inner(key: str, options: Any) -> Iterator[tuple[str, DictConfig]]:
    """Settings and those of the searches in them, each with its name."""
    if isinstance(options, DictConfig):
        yield key, options
        for name, inner in options.items():
            yield from _with_inner(f"{key}.{name!s}", inner)


def _check_metrics(config: DictConfig) -> None:
    """Notice a metric's missing files before gigabytes of another model are downloaded."""
    for name, options in config.metric.items():
        for option, value in options.items():
            if isinstance(value, str) and looks_local(value) and not Path(value).expanduser().exists():
                raise UserError(f"metric.{name}.{option}={value} does not exist: give a local path or a hub id")


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


def _replacing(job: str, key: str) -> str | None:
    """The override of the setting that would read a key."""
    plain = settings_of_choices(job, _given())
    for text in _given():
        value: Any = plain
        for part in text.lstrip("+").partition("=")[0].split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if key in READ.findall(str(value)) and not isinstance(value, dict):
            return text
    return None


def _check_recipe(config: DictConfig) -> None:
    """Refuse a key of the recipe on the command line that the composed config does not read."""
    read = _interpolated(config)
    for override in _given():
        match = RECIPE_KEY.match(override)
        if match and f"recipe.{match[1]}" not in read and "recipe" not in read:
            if other := _replacing(config.job, f"recipe.{match[1]}"):
                raise UserError(f"{match[0]} has no effect beside {other}: leave one of them out")
            useful = ", ".join(f"recipe.{key}" for key in config.recipe if f"recipe.{key}" in read)
            model = HydraConfig.get().runtime.choices.get("model")
            raise UserError(f"{match[0]} has no effect: model={model} and these settings read only {useful}")
