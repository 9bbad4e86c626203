"""What the config of an evaluation chooses, checked before anything is loaded."""

from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from golden_noise.errors import UserError
from golden_noise.generation.names import BEST_OF_N, CONSTANT, METHODS, STANDARD

ADDED = {  # methods beside those that have a name of their own, and what each is
    "checkpoints": "a folder, hub id or file",
    "searches": "a search with its _target_, as in conf/search",
}


def evaluated_methods(config: DictConfig) -> list[Any]:
    """The methods of `evaluation.methods`, of which one alone needs no brackets."""
    methods = config.evaluation.methods
    return list(methods) if isinstance(methods, ListConfig) else [] if methods is None else [methods]


def check_metrics(config: DictConfig) -> None:
    """Check that there is a metric.

    Raises:
        UserError: there is none.
    """
    if not config.get("metric"):
        raise UserError("no metric is left to score the images by: choose one, such as metric=shapes")


def check_methods(config: DictConfig) -> None:
    """Check the choice of methods and metrics, before anything is loaded.

    Raises:
        UserError: an unknown or doubled method, no metric, or one for `best_of_n` that was not chosen.
    """
    check_metrics(config)
    names, known = evaluated_methods(config), (*METHODS, BEST_OF_N)
    added = [(group, name) for group in ("checkpoints", "searches") for name in config.evaluation[group]]
    for name in names:
        if name not in known:
            raise UserError(f"evaluation.methods: unknown method {name!r}, choose from {', '.join(known)}")
    for group, name in added:
        if name in known or not str(name).replace("-", "_").isidentifier():
            raise UserError(f"evaluation.{group}: {name!r} must be a name of its own, such as 'first_training'")
        if not _is_source(config.evaluation[group][name], group):
            raise UserError(f"evaluation.{group}.{name} must be {ADDED[group]}")
    every = [*names, *(name for _, name in added)]
    if len({*every}) < len(every):
        raise UserError(f"evaluation names a method twice: {', '.join(map(str, every))}")
    if STANDARD not in names:
        raise UserError(f"evaluation.methods={names} lack '{STANDARD}': every method is compared with it")
    if CONSTANT in names:
        check_constant(config)
    best_of = config.evaluation.best_of
    if best_of.count < 2 or (best_of.metric and best_of.metric not in config.metric):
        chosen = ", ".join(config.metric)
        raise UserError(
            f"evaluation.best_of={dict(best_of)} needs count >= 2 and a metric among the chosen ones: {chosen}"
        )


def _is_source(value: Any, group: str) -> bool:
    return isinstance(value, DictConfig) and "_target_" in value if group == "searches" else isinstance(value, str)


def check_constant(config: DictConfig) -> None:
    """Check that the control `constant`, where it is chosen, has a factor or some to try.

    Raises:
        UserError: it has none.
    """
    options = OmegaConf.select(config, "evaluation.constant")
    if options is None or CONSTANT not in evaluated_methods(config):
        return
    if options.factor is None and not options.factors:
        raise UserError(
            f"evaluation.constant.factors={options.factors} must be a list of numbers to try, such as [0.5,0.8], or "
            "give evaluation.constant.factor=NUMBER"
        )
