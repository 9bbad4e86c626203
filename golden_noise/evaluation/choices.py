"""What the config of an evaluation chooses."""

from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from golden_noise.errors import UserError


def evaluated_methods(config: DictConfig) -> list[Any]:
    """The methods of `evaluation.methods`, of which one alone needs no brackets."""
    methods = config.evaluation.methods
    return list(methods) if isinstance(methods, ListConfig) else [] if methods is None else [methods]


def check_constant(config: DictConfig) -> None:
    """Check that the control `constant`, where it is chosen, has a factor or some to try.

    Raises:
        UserError: it has none.
    """
    options = OmegaConf.select(config, "evaluation.constant")
    if options is None or "constant" not in evaluated_methods(config):
        return
    if options.factor is None and not options.factors:
        raise UserError(
            f"evaluation.constant.factors={options.factors} must be a list of numbers to try, such as [0.5,0.8], or "
            "give evaluation.constant.factor=NUMBER"
        )
