"""What the config of an evaluation chooses."""

import math
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from golden_noise.errors import UserError

GREATEST_FACTOR = 1000  # of noise; ten times more overflows in float16


def evaluated_methods(config: DictConfig) -> list[Any]:
    """The methods of `evaluation.methods`, of which one alone needs no brackets."""
    methods = config.evaluation.methods
    return list(methods) if isinstance(methods, ListConfig) else [] if methods is None else [methods]


def check_constant(config: DictConfig) -> None:
    """Check the factors of the control `constant`, where it is chosen.

    Raises:
        UserError: one is no number above 0, or so large that noise would overflow; or there are none to try.
    """
    options = OmegaConf.select(config, "evaluation.constant")
    if options is None or "constant" not in evaluated_methods(config):
        return
    factors, one = options.factors, options.factor
    if isinstance(factors, ListConfig):
        factors = OmegaConf.to_container(factors)
    if one is None and not (isinstance(factors, list) and factors):
        raise UserError(
            f"evaluation.constant.factors={_shown(factors)} must be a list of numbers to try, such as [0.5,0.8], or "
            "give evaluation.constant.factor=NUMBER"
        )
    for name, numbers in (("factor", [] if one is None else [one]), ("factors", factors if one is None else [])):
        for number in numbers:
            if not (_is_number(number) and 0 < number <= GREATEST_FACTOR):
                raise UserError(
                    f"evaluation.constant.{name}: {_shown(number)} must be a number above 0, at most {GREATEST_FACTOR}"
                )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)
