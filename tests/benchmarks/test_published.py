"""The published network as the benchmarks write it from its formulas, against ours with the published options."""

import pytest
import torch
from torch.nn import functional as F

from benchmarks.published import PublishedNPNet, PublishedStep
from golden_noise.npnet import NPNet
from golden_noise.npnet.core.build import build
from golden_noise.npnet.core.published import understand
from golden_noise.npnet.core.saved import Saved

LATENT, EMBEDS = (4, 16, 16), (77, 8)
SMALL_SWIN = {"embed_dim": 24, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 3, 6)}
PROMPTS = ["a cat", "ein Bär, köstlich"]


def published(attention: bool) -> PublishedNPNet:
    """With gates that are open and every branch at work."""
    torch.manual_seed(0)
    network = PublishedNPNet(LATENT, EMBEDS, attention, **SMALL_SWIN).eval()
    network.alpha.data.fill_(0.7)
    network.beta.data.fill_(-0.3)
    return network


def ours(network: PublishedNPNet) -> NPNet:
    """NPNet with the same weights, read as those of a published file are."""
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    size = sum(value.nbytes for value in weights.values())
    options = {"attention": network.unet_svd.attention is not None, "backbone_args": SMALL_SWIN}
    config, named = understand(weights, size, "weights", options)
    return build(NPNet, Saved("weights", config, named))


@pytest.mark.parametrize("attention", [True, False])
def test_the_published_network_is_what_its_weights_mean_here(attention):
    network = published(attention)
    noise, embeds = torch.randn(3, *LATENT), torch.randn(3, *EMBEDS)
    with torch.no_grad():
        torch.testing.assert_close(network(noise, embeds), ours(network)(noise, embeds), atol=1e-4, rtol=1e-4)
        moved = network(noise, embeds) - network(noise, embeds.flip(0))
    assert moved.abs().max() > 1e-3  # the prompt counts


def test_the_published_step_learns_from_the_first_prompt_alone():
    network, asked = published(attention=False), []

    def encode(prompt: str) -> torch.Tensor:
        asked.append(prompt)
        return torch.full((1, *EMBEDS), 0.1)

    step = PublishedStep(network, encode)
    noise, golden = (torch.randn(2, *LATENT, dtype=torch.float16) for _ in range(2))
    before = F.mse_loss(network(noise.float(), encode("")), golden.float())
    first, *_, last = [step(noise, golden, PROMPTS) for _ in range(4)]
    assert asked == ["", *["a cat"] * 4] and last < first
    torch.testing.assert_close(first, before.detach())
