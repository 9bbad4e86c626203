"""A reward to train on: the weighted sum of metrics with gradients."""

from collections.abc import Collection, Mapping, Sequence
from math import isfinite
from typing import Any

from hydra.utils import get_object, instantiate
from torch import Tensor

from golden_noise.errors import UserError
from golden_noise.metrics.base import DifferentiableMetric, Metric


class WeightedReward:
    """Σ weight * score, itself a `DifferentiableMetric`.

    Args:
        metrics: by name; those without a weight are left out.
        weights: by the same names, in units of the metrics' scores. A negative one lowers a score, 0 leaves it out.

    Attributes:
        metrics, weights: those that count.

    Raises:
        UserError: a weight is not finite, none counts, or one is of a metric that is missing or has no gradients.
    """

    def __init__(self, metrics: Mapping[str, Metric], weights: Mapping[str, float]):
        able = {name: metric for name, metric in metrics.items() if isinstance(metric, DifferentiableMetric)}
        self.weights = check_weights(weights, metrics, able)
        self.metrics = {name: able[name] for name in self.weights}
        self.version = " + ".join(f"{weight:g} {name} {able[name].version}" for name, weight in self.weights.items())
        ends = [
            sorted(weight * end for end in self.metrics[name].range)  # a negative weight swaps them
            for name, weight in self.weights.items()
        ]
        self.range = (sum(low for low, _ in ends), sum(high for _, high in ends))

    def score(self, prompts: Sequence[str], images: Tensor) -> Tensor:
        return self.total({name: metric.score(prompts, images) for name, metric in self.metrics.items()})

    def loss(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """-score (B,) with gradients; see `DifferentiableMetric`."""
        return self.total(self.parts(images, prompts))

    def parts(self, images: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Every metric's own loss (B,) with gradients, without its weight; their `total` is the loss."""
        return {name: metric.loss(images, prompts) for name, metric in self.metrics.items()}

    def total(self, parts: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum (B,) of one tensor (B,) per metric, such as `parts`."""
        first, *others = (weight * parts[name] for name, weight in self.weights.items())
        return sum(others, start=first)


def weighted(metrics: Mapping[str, Any] | None, weights: Mapping[str, float]) -> WeightedReward:
    """A `WeightedReward` of configs of metrics, of which only those with a weight are loaded.

    Args:
        metrics: what `metric=` chose: configs by name.

    Raises:
        UserError: as `WeightedReward`, before anything is loaded.
    """
    chosen = metrics or {}
    used = check_weights(weights, chosen, [name for name, config in chosen.items() if _may_be_able(config)])
    return WeightedReward({name: instantiate(chosen[name]) for name in used}, used)


def check_weights(weights: Mapping[str, float], known: Collection[str], able: Collection[str]) -> dict[str, float]:
    """The weights other than 0.

    Args:
        known: names of the metrics that were chosen.
        able: those of them that have gradients.

    Raises:
        UserError: see `WeightedReward`.
    """
    choice = f"those with gradients among the chosen ones: {', '.join(able) or 'none'}"
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not isfinite(weight):
            raise UserError(f"reward.weights.{name}={weight} must be a finite number; 0 leaves the metric out")
        if weight and name not in known:
            raise UserError(f"reward.weights.{name}: choose {name} with metric= too, or one of {choice}")
        if weight and name not in able:
            raise UserError(f"reward.weights.{name}: {name} has no gradients to train on; {choice}")
    used = {name: float(weight) for name, weight in weights.items() if weight}
    if not used:
        raise UserError(f"reward.weights needs a weight other than 0 for one of {choice}")
    return used


def _may_be_able(config: Mapping[str, Any]) -> bool:
    """Whether a metric's config may give one with gradients. What a function will return is not known."""
    made_by = get_object(config["_target_"])
    return hasattr(made_by, "loss") or not isinstance(made_by, type)
