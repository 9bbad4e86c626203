"""What every search of the config group must keep."""

import pytest
import torch
from hydra.utils import instantiate

from golden_noise.cli.conf import CONF
from golden_noise.cli.config import job_config
from golden_noise.noise import draw_noise

NOISE = draw_noise([0, 1, 2], (4, 8, 8))
NAMES = sorted(path.stem for path in (CONF / "search").glob("*.yaml"))


@pytest.fixture(scope="module", params=NAMES)
def search(request):
    small = {"best_of_n": ["search.n=2"]}.get(request.param, [])
    config = job_config("collect", [f"search={request.param}", "device=cpu", "pipeline.steps=3", *small])
    return instantiate(config.search)


@pytest.fixture(scope="module")
def golden(search, sdxl, prompt):
    return search.search(NOISE, prompt, sdxl)


def test_searching_repeats_exactly_and_moves(search, sdxl, prompt, golden):
    assert torch.equal(golden, search.search(NOISE, prompt, sdxl))
    assert (golden - NOISE).abs().max() > 1e-3


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
