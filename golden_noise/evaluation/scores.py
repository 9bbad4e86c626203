"""One score per item, method and metric, all on the same items."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from golden_noise.errors import UserError
from golden_noise.generation.names import CONTROLS, NPNET, SEARCH, STANDARD

ALL = "all"  # the name of the whole set where results are listed per task


@dataclass(frozen=True)
class Scores:
    """Scores of N items (a prompt with a seed) under every method and metric.

    Attributes:
        items: one dict per item: ``index``, ``prompt``, ``seed`` and ``task`` (empty where the prompt has none).
        metrics: the first one leads: it chooses the report's gallery, the others break its ties.
        values: ``[metric][method]``, arrays (N,) of finite floats, higher is better.
        files: ``[method]``, names of the images, relative to the evaluation's folder or absolute.
        diversity: ``[space][method]``, mean distance of images of one prompt (P,) for prompts with several seeds.
        noise: ``[measure][method]``, measures of the starting noises (N,), if known.
        calls: ``[method]``, denoiser calls per image, its noise included, if known.
        constant: how the control of that name was chosen (see `Constant`).
        remarks: what else a reader must know.

    Raises:
        UserError: no items, no ``standard``, a score that is not finite, or a task with the reserved name ``all``.
    """

    items: list[dict[str, Any]]
    methods: list[str]
    metrics: list[str]
    values: dict[str, dict[str, np.ndarray]]
    files: dict[str, list[str]] = field(default_factory=dict)
    diversity: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    noise: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    calls: dict[str, float] = field(default_factory=dict)
    constant: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.items:
            raise UserError("nothing to evaluate: the prompt set is empty")
        if STANDARD not in self.methods:
            raise UserError(f"methods {self.methods} lack '{STANDARD}': every method is compared with it")
        if ALL in self.tasks:
            raise UserError(f"a prompt has the task '{ALL}', the name of the whole set: rename that task")
        for metric in self.metrics:
            for method in self.methods:
                self._check(metric, method)

    def _check(self, metric: str, method: str) -> None:
        values = self.values[metric][method]
        assert values.shape == (len(self.items),), f"{metric}/{method}: {values.shape}"
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            item = self.items[bad[0]]
            raise UserError(
                f"metric '{metric}' gave {values[bad[0]]} for method '{method}', item {item['index']} "
                f"({item['prompt']!r}), {bad.size} such scores in all: check that item's image and the metric"
            )

    @property
    def shown(self) -> list[str]:
        """The methods whose images are shown: all but the controls, unless there is nothing else."""
        methods = [method for method in self.methods if method not in CONTROLS]
        return methods if len(methods) > 1 else self.methods

    @property
    def subject(self) -> str | None:
        """The method under test: NPNet, else the search, else the first beside standard noise."""
        candidates = (NPNET, SEARCH, *self.shown)
        return next((method for method in candidates if method in self.shown and method != STANDARD), None)

    @property
    def tasks(self) -> list[str]:
        """The tasks in alphabetical order; items without a task belong to none."""
        return sorted({item["task"] for item in self.items} - {""})

    def positions(self, task: str) -> np.ndarray:
        """Positions in ``items`` of one task, or of every item for ``all``."""
        return np.array([i for i, item in enumerate(self.items) if task in (ALL, item["task"])])
