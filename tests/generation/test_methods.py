import pytest
import torch

from golden_noise.generation.methods import Methods, moved, predicting, rescaled, searching, shifted
from golden_noise.generation.names import METHODS
from golden_noise.noise import draw_noise, sampler_generators
from golden_noise.npnet import DenoiserNPNet, NPNet
from golden_noise.pipelines.sdxl import SDXLPipeline
from golden_noise.search.redenoise import Redenoise

SEEDS = [3, 4, 2**31]
NOISE = draw_noise(SEEDS, (4, 8, 8))
GOLDEN = 0.8 * NOISE + torch.tensor([0.1, 0.5, 2.0])[:, None, None, None] * draw_noise([100, 101, 102], (4, 8, 8))
PROMPTS = ["a red circle", "two crosses", "a blue square"]
OTHERS = ["two crosses", "a blue square", "a red circle"]


@pytest.fixture(scope="module")
def pipeline(tiny_sdxl):
    return SDXLPipeline.load(str(tiny_sdxl), device="cpu", height=32, width=32, steps=10, guidance=1.0)


@pytest.fixture(scope="module")
def npnet():
    """A network that moves the noise, and by the prompt."""
    torch.manual_seed(0)
    net = NPNet((4, 8, 8), (16, 128)).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return net


@pytest.fixture(scope="module")
def noises(pipeline, npnet):
    constant = {"constant": lambda noise, prompt, seeds: 0.6 * noise}
    search = {"search": searching(Redenoise(10), pipeline)}
    return computed(Methods(list(METHODS), pipeline, npnet, search | constant), pipeline)[0]


def computed(methods, pipeline):
    return methods.noises(NOISE, pipeline.encode(PROMPTS), pipeline.encode(OTHERS), SEEDS)


def lengths(move):
    return move.flatten(1).norm(dim=1)


def close(found, expected, atol=1e-5):
    torch.testing.assert_close(found, expected, atol=atol, rtol=1e-5)


@pytest.mark.parametrize(("strength", "expected"), [(0.0, NOISE), (1.0, GOLDEN), (1, GOLDEN)])
def test_a_strength_of_0_and_of_1_is_exact(strength, expected):
    assert torch.equal(moved(NOISE, GOLDEN, strength), expected)


def test_a_strength_is_a_share_of_the_way():
    close(moved(NOISE, GOLDEN, 0.5), (NOISE + GOLDEN) / 2)
    close(moved(NOISE, GOLDEN, 2.0), 2 * GOLDEN - NOISE)
    assert moved(NOISE.half(), GOLDEN, 0.5).dtype == torch.float16
    assert torch.isnan(moved(NOISE, GOLDEN * torch.inf, 1.0)).any()  # is no golden noise, and is refused later


def test_shift_is_as_long_as_the_golden_move():
    close(lengths(shifted(NOISE, GOLDEN, SEEDS) - NOISE), lengths(GOLDEN - NOISE))


def test_shift_has_a_direction_of_its_own():
    shift = (shifted(NOISE, GOLDEN, SEEDS) - NOISE).flatten(1)
    drawn = torch.stack([torch.randn(256, generator=generator) for generator in sampler_generators(SEEDS)])
    for other in (NOISE.flatten(1), (GOLDEN - NOISE).flatten(1), drawn, shift.roll(1, 0)):
        assert torch.cosine_similarity(shift, other).abs().max() < 0.25  # four standard deviations in 256 dimensions


def test_shift_depends_on_the_seed_alone():
    close(shifted(NOISE[1:], GOLDEN[1:], SEEDS[1:]), shifted(NOISE, GOLDEN, SEEDS)[1:])


def test_no_move_no_shift():
    assert torch.equal(shifted(NOISE, NOISE, SEEDS), NOISE)


def test_rescaled_has_the_golden_std_and_the_old_direction():
    scaled = rescaled(NOISE, GOLDEN)
    close(scaled.flatten(1).std(1), GOLDEN.flatten(1).std(1))
    close(torch.cosine_similarity(scaled.flatten(1), NOISE.flatten(1)), torch.ones(3))


def test_every_method_gives_float32_noise_on_the_cpu(noises):
    assert list(noises) == list(METHODS)
    for noise in noises.values():
        assert (noise.shape, noise.dtype, noise.device.type) == (NOISE.shape, torch.float32, "cpu")


def test_methods_are_what_they_are_called(noises, pipeline, npnet):
    prompt = pipeline.encode(PROMPTS)
    with torch.no_grad():
        golden = npnet(NOISE, prompt.embeds)
    assert torch.equal(noises["standard"], NOISE)
    assert torch.equal(noises["search"], Redenoise(10).search(NOISE, prompt, pipeline))
    close(noises["npnet"], golden)
    close(noises["random_shift"], shifted(NOISE, golden, SEEDS))
    close(noises["rescaled"], rescaled(NOISE, golden))
    close(noises["constant"], 0.6 * NOISE)


def test_shuffled_uses_the_other_prompts(noises, pipeline, npnet):
    with torch.no_grad():
        expected = npnet(NOISE, pipeline.encode(OTHERS).embeds)
    close(noises["shuffled"], expected)
    assert (noises["shuffled"] - noises["npnet"]).abs().max() > 1e-3


def test_only_the_named_methods_are_computed(pipeline):
    constant = {"constant": lambda noise, prompt, seeds: 0.6 * noise}
    search = {"search": searching(Redenoise(10), pipeline)}
    methods = Methods(["search", "standard", "constant"], pipeline, npnet=None, extra=search | constant)
    found, calls = computed(methods, pipeline)
    assert list(found) == list(calls) == ["search", "standard", "constant"]


def test_a_method_costs_the_same_whatever_is_computed_beside_it(pipeline):
    """The network's one prediction serves three methods, and each of them would need it alone too."""
    network, other = (DenoiserNPNet(pipeline, rank=4, target_modules=["to_q"]) for _ in range(2))
    extra = {"constant": lambda noise, prompt, seeds: 0.6 * noise, "other": predicting(other)}
    extra["search"] = searching(Redenoise(10), pipeline)
    expected = dict.fromkeys([*METHODS, "other"], 1) | {"standard": 0, "constant": 0, "search": 3}
    for names in ([*METHODS, "other"], *([name] for name in expected)):
        methods = Methods(names, pipeline, network, extra, [other])
        assert computed(methods, pipeline)[1] == {name: expected[name] for name in names}


def test_a_network_without_a_denoiser_costs_no_calls(pipeline, npnet):
    assert computed(Methods(["npnet"], pipeline, npnet), pipeline)[1] == {"npnet": 0}
