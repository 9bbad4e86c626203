"""Search spaces: YAML files in W&B's format for sweeps (conf/sweep), as far as Optuna has the same."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from golden_noise.cli.conf import CONF
from golden_noise.errors import UserError

METHODS = ("bayes", "random")


@dataclass(frozen=True)
class Space:
    """What is searched, and how.

    Attributes:
        content: of the whole file.
        metric: a value that validations log; `maximize` says which way is better.
        min_epochs, eta: of successive halving: of the trials that got this far, one in `eta` goes on. None: all do.
        fixed: options that every trial has.
        varied: options that are searched.
    """

    content: dict[str, Any]
    method: str
    metric: str
    maximize: bool
    min_epochs: int | None
    eta: int
    fixed: dict[str, Any]
    varied: dict[str, BaseDistribution]


def read_space(name: str) -> Space:
    """Read a search space.

    Args:
        name: of a file in conf/sweep, or a path.

    Raises:
        UserError: there is none, or it holds what the search does not know.
    """
    file = Path(name) if Path(name).is_file() else CONF / "sweep" / f"{name}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in (CONF / "sweep").glob("*.yaml")))
        raise UserError(f"no search space {name}: give a YAML file, or one of conf/sweep: {known}")
    try:
        content = yaml.safe_load(file.read_text("utf-8"))
        early = content.get("early_terminate")
        if early and early["type"] != "hyperband":
            raise ValueError(f"early_terminate.type={early['type']} must be hyperband")
        if content["method"] not in METHODS:
            raise ValueError(f"method={content['method']} must be {' or '.join(METHODS)}")
        parameters = content["parameters"].items()
        return Space(
            content=content,
            method=content["method"],
            metric=content["metric"]["name"],
            maximize={"maximize": True, "minimize": False}[content["metric"]["goal"]],
            min_epochs=int(early["min_iter"]) if early else None,
            eta=int(early.get("eta", 3)) if early else 3,
            fixed={key: given["value"] for key, given in parameters if "value" in given},
            varied={key: _distribution(key, given) for key, given in parameters if "value" not in given},
        )
    except KeyError as error:
        raise UserError(f"{file}: {error.args[0]} is missing") from error
    except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: {' '.join(str(error).split())[:300]}") from error


def _distribution(key: str, given: dict[str, Any]) -> BaseDistribution:
    """What Optuna calls a parameter of W&B."""
    if "values" in given:
        return CategoricalDistribution(given["values"])
    low, high = given["min"], given["max"]
    whole = isinstance(low, int) and isinstance(high, int)
    match given.get("distribution", "int_uniform" if whole else "uniform"):
        case "int_uniform":
            return IntDistribution(low, high)
        case "uniform":
            return FloatDistribution(low, high)
        case "log_uniform_values":
            return FloatDistribution(low, high, log=True)
        case "q_uniform":
            return FloatDistribution(low, high, step=given.get("q", 1))
        case other:
            known = "values, int_uniform, uniform, log_uniform_values or q_uniform"
            raise ValueError(f"{key}: distribution {other} is not known here: take {known}")
