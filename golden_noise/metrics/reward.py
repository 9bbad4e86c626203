"""What objectives and searches maximise: a weighted sum of metrics."""

from collections.abc import Mapping, Sequence
from math import isfinite

from torch import Tensor

from golden_noise.errors import UserError
from golden_noise.metrics.base import DifferentiableMetric, Metric


class WeightedReward:
    """Σ weight * score. It is a metric itself, and a differentiable one if all of its metrics are.

    Args:
        metrics: by name; those without a weight are left out.
        weights: by the same names, in units of the metrics' scores. A negative one lowers a score, 0 leaves it out.

    Attributes:
        metrics, weights: those that count.

    Raises:
        UserError: a weight is not finite or of no metric, or none counts.
    """

    def __init__(self, metrics: Mapping[str, Metric], weights: Mapping[str, float]):
        self.weights = _checked(weights, metrics)
        self.metrics = {name: metrics[name] for name in self.weights}
        self.version = " + ".join(f"{weight:g} {name} {metrics[name].version}" for name, weight in self.weights.items())
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
        return {name: metric.loss(images, prompts) for name, metric in self.require_gradients().items()}

    def require_gradients(self) -> dict[str, DifferentiableMetric]:
        """Its metrics.

        Raises:
            UserError: one of them has no gradients.
        """
        able = {name: metric for name, metric in self.metrics.items() if isinstance(metric, DifferentiableMetric)}
        if lacking := sorted(self.metrics.keys() - able):
            name = lacking[0]
            raise UserError(
                f"reward.weights.{name}: {name} has no gradients; objective=policy and search=zero_order need none"
            )
        return able

    def total(self, parts: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum (B,) of one tensor (B,) per metric, such as `parts`."""
        first, *others = (weight * parts[name] for name, weight in self.weights.items())
        return sum(others, start=first)


def _checked(weights: Mapping[str, float], metrics: Mapping[str, Metric]) -> dict[str, float]:
    """The weights other than 0."""
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not isfinite(weight):
            raise UserError(f"reward.weights.{name}={weight} must be a finite number; 0 leaves the metric out")
        if name not in metrics:
            raise UserError(f"reward.weights.{name}: no metric of this reward, which has {', '.join(metrics)}")
    used = {name: float(weight) for name, weight in weights.items() if weight}
    if not used:
        raise UserError(f"reward.weights needs a weight other than 0 for one of {', '.join(metrics)}")
    return used
