"""A network's golden noise as a search, such as the start of another one."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from golden_noise.npnet import AnyNPNet, checkpoint
from golden_noise.npnet.fitting import check_fits
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.prompt_embedding import PromptEmbedding


@dataclass(frozen=True)
class Predicted:
    """What a network predicts; it costs what the network costs.

    Args:
        npnet: the network's source, as for `golden_noise.load`.

    Raises:
        UserError: there is no such network, or it does not fit the pipeline's noise or prompts.
    """

    npnet: str

    @torch.no_grad()
    def search(self, noise: Tensor, prompt: PromptEmbedding, pipeline: Pipeline) -> Tensor:
        npnet = _loaded(self.npnet, pipeline)
        shapes = tuple(noise.shape[1:]), tuple(prompt.embeds.shape[1:])
        check_fits(npnet, self.npnet, "the pipeline of search=predicted", *shapes, pipeline.prompt_chunks > 1)
        return npnet.golden(noise, prompt)


@cache
def _loaded(source: str, pipeline: Pipeline) -> AnyNPNet:
    return checkpoint.load(source, "search.npnet", pipeline).to(pipeline.device)


def networks_in(search: object, pipeline: Pipeline) -> list[AnyNPNet]:
    """The networks that a search and those in it predict with: their denoiser calls count as its own."""
    if isinstance(search, Predicted):
        return [_loaded(search.npnet, pipeline)]
    inner = [getattr(search, "start", None), *getattr(search, "searches", {}).values()]
    return [network for each in inner if each is not None for network in networks_in(each, pipeline)]
