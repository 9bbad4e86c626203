"""Checks of a composed config that need no model: what can be wrong is said before anything is loaded."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from golden_noise.errors import UserError
from golden_noise.selection import Selection
from golden_noise.weights import looks_local

POSITIVE = (
    "collection.batch_size",
    "collection.shard_size",
    "data.batch_size",
    "evaluation.batch_size",
    "pipeline.steps",
)

OmegaConf.register_new_resolver("eighth", lambda pixels: pixels // 8, replace=True)
OmegaConf.register_new_resolver("accelerator", lambda device: {"cuda": "gpu"}.get(device, device), replace=True)


def check(config: DictConfig) -> None:
    """Check a resolved job config.

    Raises:
        UserError: the first thing that cannot work, with the option's name and what it may be.
    """
    _check_resolution(config.pipeline)
    for option in POSITIVE:
        value = OmegaConf.select(config, option)
        if value is not None and (not isinstance(value, int) or value < 1):
            raise UserError(f"{option}={value} must be a whole number >= 1")
    _check_prompts(config)
    _check_metrics(config)
    _check_selection(config)


def _check_resolution(pipeline: DictConfig) -> None:
    for side in ("height", "width"):
        value = pipeline[side]
        if not isinstance(value, int) or value < 8 or value % 8:
            raise UserError(f"pipeline.{side}={value} must be a positive multiple of 8")
    native = tuple(pipeline.get("trained_size") or ())
    if native and native != (pipeline.height, pipeline.width):
        raise UserError(
            f"pipeline={pipeline.name} draws {native[0]}x{native[1]} only, not {pipeline.height}x{pipeline.width}"
        )


def _check_selection(config: DictConfig) -> None:
    if "collection" in config:
        options: Any = OmegaConf.to_container(config.collection, resolve=True)
        Selection.parse(options["select_by"], options["margin"], list(config.metric))


def _check_metrics(config: DictConfig) -> None:
    """A metric's missing files are noticed before gigabytes of another model are fetched."""
    for name, options in (config.get("metric") or {}).items():
        for option, value in options.items():
            if isinstance(value, str) and looks_local(value) and not Path(value).expanduser().exists():
                raise UserError(
                    f"metric.{name}.{option}={value} does not exist: give a path on this machine or a hub id"
                )


def _check_prompts(config: DictConfig) -> None:
    bundled_prompts = "golden_noise.shapes" in str(OmegaConf.select(config, "prompts._target_"))
    if bundled_prompts and not config.pipeline.bundled and config.job in ("collect", "evaluate"):
        raise UserError(
            f"pipeline={config.pipeline.name} needs prompts of its own: add prompts=file prompts.path=FILE "
            "(.csv, .jsonl or .txt) and a metric such as metric=pickscore"
        )
