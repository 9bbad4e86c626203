"""Golden noise is the same on every device, and close to it in half precision."""

import pytest
import torch

from golden_noise.noise import draw_noise
from golden_noise.npnet import DenoiserNPNet, decompose
from golden_noise.npnet.core.svd import decompose_raw, fix_signs, to_matrix
from golden_noise.pipelines.prompt_embedding import PromptEmbedding
from tests.npnet import test_npnet as parts
from tests.npnet import test_variants as configs

PROMPTS = ["a red circle above a blue square", "two crosses"]
LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "conv1"]
FIXED = [name for name, options in parts.VARIANTS.items() if options.get("signs") != "raw"]


@pytest.mark.parametrize("name", FIXED)
def test_every_choice_of_parts_gives_the_cpus_golden_noise(device, exact, name):
    npnet, (noise, embeds) = parts.trained(name), parts.inputs()
    with torch.no_grad():
        expected = npnet(noise, embeds)
        golden = npnet.to(device)(noise.to(device), embeds.to(device))
    assert golden.device.type == device and (expected - noise).abs().max() > 1e-2
    torch.testing.assert_close(golden.cpu(), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", configs.VARIANTS)
def test_every_model_gives_the_cpus_golden_noise(device, exact, name):
    npnet = configs.trained(name)
    noise, embeds = configs.inputs(npnet)
    with torch.no_grad():
        expected = npnet.golden(noise, PromptEmbedding(embeds))
        golden = npnet.to(device).golden(noise, PromptEmbedding(embeds))
    assert golden.device.type == "cpu" and npnet.device.type == device  # as the noise is
    torch.testing.assert_close(golden, expected, atol=1e-3, rtol=0)


def test_at_full_size_the_signs_are_the_cpus(device):
    noise = draw_noise([0, 1], (4, 128, 128))
    here, there = ([part.cpu() for part in decompose(noise.to(place))] for place in ("cpu", device))
    torch.testing.assert_close(there[1], here[1], atol=1e-4, rtol=1e-5)
    (u, _), (expected, _) = (fix_signs(parts[0], parts[2]) for parts in (there, here))
    torch.testing.assert_close(u, expected, atol=1e-4, rtol=0)


def test_raw_signs_are_the_devices_own(device):
    """They may differ from the CPU's, but their product is the noise all the same."""
    noise = draw_noise([3], (4, 16, 12)).to(device)
    u, s, vh = decompose_raw(noise)
    own = torch.linalg.svd(to_matrix(noise), full_matrices=False).U
    assert ((u * own).sum(dim=1) > 0.99).all()
    torch.testing.assert_close(u * s[:, None, :] @ vh, to_matrix(noise), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", parts.VARIANTS)
def test_half_precision_is_close(device, name, dtype):
    npnet, inputs = parts.trained(name).to(device), [tensor.to(device, dtype) for tensor in parts.inputs()]
    with torch.no_grad():
        full = npnet(*(tensor.float() for tensor in inputs))
        mixed = npnet(*inputs)
        half = npnet.to(dtype)(*inputs)
    assert mixed.dtype == half.dtype == dtype and half.device.type == device
    moved = (full - inputs[0].float()).norm()
    assert (mixed.float() - full).norm() / full.norm() < 0.01
    assert (half.float() - full).norm() / moved < 0.1


def test_the_denoisers_golden_noise_follows_to_the_device_and_back(device, load, exact):
    pipeline = load("cpu")
    encoded = pipeline.encode(PROMPTS)
    prompt = PromptEmbedding(encoded.embeds.clone(), pooled=encoded.pooled.clone())
    torch.manual_seed(0)
    npnet, noise = DenoiserNPNet(pipeline, 4, LAYERS), draw_noise([0, 1], (4, 8, 8))
    with torch.no_grad():
        for parameter in npnet.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        expected = npnet.golden(noise, prompt)
        assert (expected - noise).abs().max() > 1e-2
        for place in (device, "cpu"):
            golden = npnet.to(place).golden(noise, prompt)
            assert golden.device.type == "cpu" and pipeline.device.type == place
            torch.testing.assert_close(golden, expected, atol=1e-3, rtol=1e-3)
            assert pipeline.sample(pipeline.encode(PROMPTS), noise).isfinite().all()
