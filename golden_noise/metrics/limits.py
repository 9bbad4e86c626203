"""How much of a prompt a metric reads. The rest is cut and not judged."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from golden_noise.metrics.base import Metric


@runtime_checkable
class CutsPrompts(Protocol):
    """What a metric offers beside its score if it reads the start of a prompt only.

    Attributes:
        limit: tokens that it reads, with those that mark start and end.
    """

    limit: int

    def cut(self, prompts: Sequence[str]) -> int:
        """How many of the prompts are longer."""
        ...


def count_cut(tokenizer: Any, prompts: Sequence[str], limit: int) -> int:
    """How many prompts have more tokens than `limit`, with those that mark start and end."""
    if not prompts:
        return 0
    tokens = tokenizer(list(prompts), truncation=False, padding=False, verbose=False)["input_ids"]
    return sum(len(each) > limit for each in tokens)


def prompts_cut(metrics: Mapping[str, Metric], prompts: Sequence[str]) -> list[str]:
    """A line for every metric that cuts some of these prompts."""
    distinct, lines = list(dict.fromkeys(prompts)), []
    for name, metric in metrics.items():
        if isinstance(metric, CutsPrompts) and (cut := metric.cut(distinct)):
            lines.append(
                f"{name} reads {metric.limit} tokens: {cut:,} of {len(distinct):,} prompts are longer, "
                "the rest of them is not judged"
            )
    return lines
