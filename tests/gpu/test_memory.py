"""What lies on the device: pipelines in every precision, offloaded or not, and nothing that is left behind."""

import gc
import weakref

import pytest
import torch

from golden_noise.cli.mistakes import describe
from golden_noise.collecting.collector import Collector
from golden_noise.noise import draw_noise
from golden_noise.npnet import DenoiserNPNet
from golden_noise.pairs import NoisePair
from golden_noise.prompts import Prompt
from golden_noise.search.redenoise import Redenoise

PROMPTS = ["a red circle", "two crosses"]
MIB = 2**20


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_pipeline_draws_in_half_precision_what_it_draws_in_full(device, load, dtype):
    full, half = load(device), load(device, dtype)
    noise = half.draw_noise([0, 1])
    expected, images = (pipeline.sample(pipeline.encode(PROMPTS), noise) for pipeline in (full, half))
    assert half.dtype == getattr(torch, dtype) and images.dtype == torch.float32 and images.device.type == device
    assert images.isfinite().all() and (images - expected).abs().mean() < 0.05
    golden = Redenoise(10).search(noise, half.encode(PROMPTS), half)
    assert golden.isfinite().all() and golden.device == noise.device


@pytest.mark.gpu
@pytest.mark.parametrize("offload", ["none", "model", "sequential"])
def test_offloaded_pipelines_draw_and_predict(load, exact, offload):
    """On the CPU there is nothing to offload: tests/pipelines/test_memory.py sees what diffusers is asked for."""
    pipeline, plain = (load("cuda", memory={"offload": name}) for name in (offload, "none"))
    prompt, noise = pipeline.encode(PROMPTS), draw_noise([0, 1], pipeline.latent_shape)
    assert pipeline.predict(noise, 801, prompt, 3.0).isfinite().all()
    images = pipeline.sample(prompt, noise)
    torch.testing.assert_close(images, plain.sample(plain.encode(PROMPTS), noise), atol=1e-3, rtol=0)
    torch.testing.assert_close(pipeline.encode(PROMPTS).embeds, prompt.embeds)


@pytest.mark.gpu
def test_offloaded_weights_leave_the_device(load):
    pipeline = load("cuda", memory={"offload": "model"})
    pipeline.sample(pipeline.encode(PROMPTS), draw_noise([0, 1], pipeline.latent_shape))
    pipeline.pipe.maybe_free_model_hooks()
    assert {parameter.device.type for parameter in pipeline.denoiser.parameters()} == {"cpu"}


def test_nothing_stays_on_the_device_after_its_last_use(device, load, allocated):
    def use():
        pipeline = load(device)
        collector = Collector(pipeline, Redenoise(10), {}, None, 2, {}, 100)
        (results,) = collector.results([Prompt(i, text, i) for i, text in enumerate(PROMPTS)])
        assert all(isinstance(result, NoisePair) for result in results)
        return weakref.ref(pipeline.denoiser), results

    use()  # libraries keep workspaces of their own from their first use on
    before = allocated()
    denoiser, pairs = use()
    gc.collect()
    assert denoiser() is None and {pair.noise.device.type for pair in pairs} == {"cpu"}
    assert allocated() - before < MIB


def test_adapters_and_pipeline_hold_one_copy_of_the_weights(device, load, allocated):
    pipeline = load("cpu")
    size = sum(parameter.nbytes for parameter in pipeline.denoiser.parameters())
    before = allocated()
    npnet = DenoiserNPNet(pipeline, 4, ["to_q", "to_v"]).to(device)
    frozen = [p for p in npnet.denoiser.parameters() if not p.requires_grad]
    assert frozen and {p.device.type for p in frozen} == {device}
    theirs = {p.untyped_storage().data_ptr() for p in pipeline.denoiser.parameters()}
    own = [p for p in frozen if p.untyped_storage().data_ptr() not in theirs]
    assert sum(p.nbytes for p in own) < 0.02 * size  # the output layer
    others = [p for n in ("vae", "text_encoder", "text_encoder_2") for p in getattr(pipeline.pipe, n).parameters()]
    both = size + sum(p.nbytes for p in others) + sum(p.nbytes for p in npnet.parameters())
    assert allocated() - before < 1.2 * both + MIB


class Hungry:
    """A search that takes half of the device's memory for every noise."""

    def __init__(self):
        self.batches = []

    def search(self, noise, prompt, pipeline):
        self.batches.append(len(noise))
        _, total = torch.cuda.mem_get_info()
        torch.empty(len(noise) * total // 2 + 1, dtype=torch.uint8, device=pipeline.device)
        return noise * 1.1


@pytest.mark.gpu
def test_a_batch_too_large_for_the_memory_is_halved(load):
    """The CPU's sibling is in tests/collecting/test_collector.py."""
    search = Hungry()
    (results,) = Collector(load("cuda"), search, {}, None, 4, {}, 100).results([Prompt(i, "", i) for i in range(4)])
    assert [isinstance(result, NoisePair) for result in results] == [True] * 4
    assert search.batches == [4, 2, 1, 1, 2, 1, 1]
    torch.cuda.empty_cache()


@pytest.mark.gpu
def test_too_little_memory_is_one_line_of_advice():
    """The CPU's sibling is in tests/cli/test_entry.py."""
    with pytest.raises(torch.OutOfMemoryError) as error:
        torch.empty(1 << 46, dtype=torch.uint8, device="cuda")
    line = describe(error.value, "collect")
    assert "too little GPU memory" in line and "GiB" in line and "batch_size" in line and "\n" not in line
