"""Searches one after another, each from the last one's result."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from golden_noise.errors import UserError
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.prompt_embedding import PromptEmbedding
from golden_noise.search.base import NoiseSearch


@dataclass(frozen=True)
class Chain:
    """`searches` in their order; it costs the sum of their costs.

    Args:
        searches: by names of your own, which only tell them apart.

    Raises:
        UserError: there are none.
    """

    searches: Mapping[str, NoiseSearch]

    def __post_init__(self) -> None:
        if not self.searches:
            raise UserError("search.searches is empty: +search@search.searches.NAME=SEARCH adds one")

    def search(self, noise: Tensor, prompt: PromptEmbedding, pipeline: Pipeline) -> Tensor:
        golden = noise
        for each in self.searches.values():
            golden = each.search(golden, prompt, pipeline)
        return golden
