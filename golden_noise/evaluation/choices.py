"""Checks of what the config of an evaluation chooses, before anything is loaded."""

from typing import Any

from omegaconf import DictConfig, ListConfig

from golden_noise.errors import UserError
from golden_noise.generation.names import BEST_OF_N, CONSTANT, GUIDED, METHODS, STANDARD


def evaluated_methods(config: DictConfig) -> list[Any]:
    """The methods of `evaluation.methods`, of which one alone needs no brackets."""
    methods = config.evaluation.methods
    return list(methods) if isinstance(methods, ListConfig) else [] if methods is None else [methods]


def check_evaluation(config: DictConfig) -> None:
    """Raise UserError for an unknown or doubled method, no metric, or an option that a method lacks."""
    if not config.get("metric"):
        raise UserError("no metric is left to score the images by: choose one, such as metric=shapes")
    if config.evaluation.get("images") is not None:
        return
    names, known = evaluated_methods(config), (*METHODS, BEST_OF_N, GUIDED)
    added = [(group, name) for group in ("checkpoints", "searches") for name in config.evaluation[group]]
    for name in names:
        if name not in known:
            raise UserError(f"evaluation.methods: unknown method {name!r}, choose from {', '.join(known)}")
    for group, name in added:
        if name in known or not str(name).replace("-", "_").isidentifier():
            raise UserError(f"evaluation.{group}: {name!r} must be a name of its own, such as 'first_training'")
    every = [*names, *(name for _, name in added)]
    if len({*every}) < len(every):
        raise UserError(f"evaluation names a method twice: {', '.join(map(str, every))}")
    if STANDARD not in names:
        raise UserError(f"evaluation.methods={names} lack '{STANDARD}': every method is compared with it")
    constant, best_of = config.evaluation.constant, config.evaluation.best_of
    if CONSTANT in names and constant.factor is None and not constant.factors:
        raise UserError(
            f"evaluation.constant.factors={constant.factors} must be a list of numbers to try, such as [0.5,0.8], or "
            "give evaluation.constant.factor=NUMBER"
        )
    if best_of.metric and best_of.metric not in config.metric:
        chosen = ", ".join(config.metric)
        raise UserError(f"evaluation.best_of.metric={best_of.metric} must be one of the chosen metrics: {chosen}")
