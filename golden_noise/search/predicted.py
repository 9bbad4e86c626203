"""A network's golden noise as a search, such as the start of another one."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from golden_noise.npnet import AnyNPNet, checkpoint
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.prompt_embedding import PromptEmbedding


@dataclass(frozen=True)
class Predicted:
    """What a network predicts; it costs what the network costs.

    Args:
        npnet: the network's source, as for `golden_noise.load`.
    """

    npnet: str

    @torch.no_grad()
    def search(self, noise: Tensor, prompt: PromptEmbedding, pipeline: Pipeline) -> Tensor:
        return _loaded(self.npnet, pipeline).golden(noise, prompt)


@cache
def _loaded(source: str, pipeline: Pipeline) -> AnyNPNet:
    return checkpoint.load(source, "search.npnet", pipeline).to(pipeline.device)


def networks_in(search: object, pipeline: Pipeline) -> list[AnyNPNet]:
    """The networks that a search and those in it predict with: their denoiser calls count as its own."""
    if isinstance(search, Predicted):
        return [_loaded(search.npnet, pipeline)]
    inner = [getattr(search, "start", None), *getattr(search, "searches", {}).values()]
    return [network for each in inner if each is not None for network in networks_in(each, pipeline)]
