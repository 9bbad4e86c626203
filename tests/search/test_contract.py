"""What every search of the config group must keep."""

import pytest
import torch
from hydra.utils import instantiate
from lightning.pytorch.utilities.seed import isolate_rng
from omegaconf import OmegaConf

from golden_noise.cli.conf import CONF
from golden_noise.cli.config import job_config
from golden_noise.cli.schema import Search
from golden_noise.noise import draw_noise
from golden_noise.npnet import NPNet
from golden_noise.pipelines.sdxl import SDXLPipeline

NOISE = draw_noise([0, 1, 2], (4, 8, 8))
NAMES = sorted(path.stem for path in (CONF / "search").glob("*.yaml"))
SMALL = {
    "chain": ["search.searches.guided.rounds=2"],
    "best_of_n": ["search.n=2"],
    "reno": ["search.iterations=2", "search.steps=2"],
    "zero_order": ["search.rounds=2", "search.neighbours=2"],
}


class Dark:
    """Likes dark images."""

    def loss(self, images, prompts):
        return 10 * images.mean(dim=(1, 2, 3))

    def score(self, prompts, images):
        return -self.loss(images, prompts)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Folder of a network that moves the noise."""
    folder = tmp_path_factory.mktemp("network")
    with isolate_rng():
        torch.manual_seed(0)
        npnet = NPNet((4, 8, 8), (16, 128), fit="tile")
        with torch.no_grad():
            for parameter in npnet.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
    npnet.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=NAMES)
def search(request, network):
    small = SMALL.get(request.param, [])
    if request.param == "predicted":
        small = [f"search.npnet={network}"]
    config = job_config("collect", [f"search={request.param}", "device=cpu", "pipeline.steps=3", *small])
    Search.model_validate(OmegaConf.to_container(config.search, resolve=True))
    return instantiate(config.search, **({"reward": Dark()} if "reward" in config.search else {}))


@pytest.fixture(scope="module")
def golden(search, sdxl, prompt):
    return search.search(NOISE, prompt, sdxl)


def test_searching_repeats_exactly_and_moves(search, sdxl, prompt, golden):
    assert torch.equal(golden, search.search(NOISE, prompt, sdxl))
    assert (golden - NOISE).abs().max() > 1e-3
    assert not golden.requires_grad


def test_batch_is_its_singles(search, sdxl, prompt, golden):
    singles = [search.search(NOISE[i : i + 1], prompt[i : i + 1], sdxl) for i in range(3)]
    torch.testing.assert_close(golden, torch.cat(singles), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_shape_dtype_and_input_are_kept(search, sdxl, prompt, dtype):
    noise = NOISE.to(dtype)
    before = noise.clone()
    golden = search.search(noise, prompt, sdxl)
    assert (golden.shape, golden.dtype, golden.device) == (noise.shape, dtype, noise.device)
    assert torch.equal(noise, before)


def test_images_need_not_be_square(search, sdxl, prompt):
    wide = SDXLPipeline(sdxl.pipe, height=32, width=48, steps=2, guidance=1.0)
    noise = draw_noise([0], wide.latent_shape)
    golden = search.search(noise, prompt[:1], wide)
    assert golden.shape == (1, 4, 8, 12) and golden.isfinite().all()


def test_it_works_where_gradients_are_off(search, sdxl, prompt, golden):
    """As evaluations and collections call it."""
    with torch.no_grad():
        assert torch.equal(golden, search.search(NOISE, prompt, sdxl))
