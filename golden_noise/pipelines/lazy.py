"""A pipeline that is loaded when it is first needed."""

from functools import cached_property

from hydra.utils import instantiate
from omegaconf import DictConfig

from golden_noise.pipelines.base import Pipeline


class LazyPipeline:
    """The pipeline of a config, loaded once, when it is first needed: some jobs need none, others only at the end.

    A `Pipeline` can be passed wherever a LazyPipeline is expected: its `loaded` is itself.

    Args:
        model: the config `pipeline.model`.
    """

    def __init__(self, model: DictConfig):
        self.model = model

    @cached_property
    def loaded(self) -> Pipeline:
        """The pipeline."""
        return instantiate(self.model)
