"""A pipeline that is loaded when it is first needed."""

from functools import cached_property
from typing import TYPE_CHECKING

from golden_noise.pipelines.base import Pipeline

if TYPE_CHECKING:
    from omegaconf import DictConfig


class LazyPipeline:
    """The pipeline of a config, loaded once, when it is first needed: some jobs need none, others only at the end.

    A `Pipeline` can be passed wherever a LazyPipeline is expected: its `loaded` is itself.

    Args:
        model: the config `pipeline.model`.
    """

    def __init__(self, model: "DictConfig"):
        self.model = model

    @cached_property
    def loaded(self) -> Pipeline:
        """The pipeline."""
        from hydra.utils import instantiate  # late: golden_latents must work without Hydra

        return instantiate(self.model)
