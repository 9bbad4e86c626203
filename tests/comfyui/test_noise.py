"""The noise that samplers get: that of golden_noise, or left alone with a reason."""

import pytest
import torch

from golden_noise import golden_latents
from golden_noise.hub import PACKAGE
from golden_noise.npnet import LowFrequencyNPNet, NPNet

pytestmark = pytest.mark.comfy

PROMPT, OTHER = "a blue triangle left of a red circle", "two crosses"
LONG = "a photo of a blue triangle left of a red circle and a green square above a purple cross"
CLOSE = {"atol": 1e-5, "rtol": 0}


@pytest.fixture(scope="module")
def pack(comfy):
    """The pack's modules."""
    from comfyui import noise, npnets, settings

    class Pack:
        UserError = npnets.UserError

        @staticmethod
        def golden(network, strength=1.0, **options):
            """A network in the state in which nodes pass it on."""
            wrapped = network if hasattr(network, "move") else npnets.NPNet(network, "network")
            return noise.GoldenNoise(wrapped, settings.Settings(strength, **options))

        @classmethod
        def apply(cls, model, network, *options, **named):
            return noise.changing_noise(model, cls.golden(network, *options, **named).in_guider)

    return Pack


@pytest.fixture(scope="module")
def draw(comfy):
    """Noise as ComfyUI's nodes draw it."""
    from tests.comfyui.in_process import noise

    return noise


@pytest.fixture(scope="module")
def adapters(pack):
    """The bundled network of model=denoiser_lora."""
    from comfyui.adapters import DenoiserNPNet
    from comfyui.core.load import load

    return DenoiserNPNet(load(str(PACKAGE / "shapes/weights/npnet")), "miniature")


@pytest.mark.parametrize("seed", [0, 7])
def test_a_plain_network_gives_the_packages_golden_noise(pack, miniature, pipe, plain, draw, seed):
    expected = golden_latents(plain, pipe, PROMPT, seed)
    given = miniature.given(pack.apply(miniature.model, plain), miniature.encode(PROMPT), draw(seed))
    torch.testing.assert_close(given, expected, **CLOSE)
    assert (given - draw(seed)).abs().max() > 0.1


@pytest.mark.parametrize("seed", [0, 7])
def test_adapters_give_the_packages_golden_noise(pack, miniature, pipe, adapters, draw, seed):
    expected = golden_latents("package:shapes/weights/npnet", pipe, PROMPT, seed)
    given = miniature.given(pack.apply(miniature.model, adapters), miniature.encode(PROMPT), draw(seed))
    torch.testing.assert_close(given, expected, **CLOSE)
    assert (given - draw(seed)).abs().max() > 0.1


def test_a_low_frequency_network_too(pack, miniature, pipe, draw):
    torch.manual_seed(0)
    network = LowFrequencyNPNet((4, 8, 8), (16, 128))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    expected = golden_latents(network.eval(), pipe, PROMPT, 3)
    given = miniature.given(pack.apply(miniature.model, network), miniature.encode(PROMPT), draw(3))
    torch.testing.assert_close(given, expected, **CLOSE)


@pytest.fixture(params=["plain", "adapters"])
def network(request):
    return request.getfixturevalue(request.param)


def test_every_image_of_a_batch_gets_its_own(pack, miniature, network, draw):
    golden, prompt, noise = pack.apply(miniature.model, network), miniature.encode(PROMPT), draw(3, count=3)
    batch = miniature.given(golden, prompt, noise)
    alone = torch.cat([miniature.given(golden, prompt, noise[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(batch, alone, **CLOSE)
    prompts = [PROMPT, OTHER, PROMPT]
    mixed = miniature.given(golden, miniature.batch(prompts), noise)
    torch.testing.assert_close(mixed[::2], batch[::2], **CLOSE)
    assert (mixed[1] - batch[1]).abs().max() > 0.01


def test_strength_is_how_far_the_noise_moves(pack, miniature, network, draw):
    prompt, noise = miniature.encode(PROMPT), draw(3)
    given = {s: miniature.given(pack.apply(miniature.model, network, s), prompt, noise) for s in (0.0, 0.5, 1.0, 2.0)}
    plain = miniature.given(miniature.model, prompt, noise)
    assert torch.equal(given[0.0], plain)
    for strength in (0.5, 2.0):
        torch.testing.assert_close(given[strength] - plain, strength * (given[1.0] - plain), **CLOSE)


@pytest.mark.parametrize("size", [(12, 8), (16, 16), (6, 10)])
@pytest.mark.parametrize("fit", ["tile", "crop", "resize"])
def test_other_sizes(pack, miniature, plain, draw, size, fit):
    prompt, noise = miniature.encode(PROMPT), draw(3, size=size)
    plain.fit, embeds = fit, prompt[0][0]
    with torch.no_grad():
        expected = plain(noise, embeds)
    plain.fit = "exact"
    given = miniature.given(pack.apply(miniature.model, plain, other_sizes=fit), prompt, noise)
    torch.testing.assert_close(given, expected, **CLOSE)


def test_adapters_take_any_size_that_the_denoiser_takes(pack, miniature, pipe, adapters, draw):
    expected = golden_latents("package:shapes/weights/npnet", pipe, PROMPT, 3, height=48, width=32)
    given = miniature.given(pack.apply(miniature.model, adapters), miniature.encode(PROMPT), draw(3, size=(12, 8)))
    torch.testing.assert_close(given, expected, **CLOSE)


@pytest.mark.parametrize("how", ["truncate", "average", "chain"])
@pytest.mark.filterwarnings("ignore:the prompt has")
def test_long_prompts(pack, miniature, plain, draw, how):
    prompt, noise = miniature.encode(LONG), draw(3)
    first, second = prompt[0][0].chunk(2, dim=1)
    with torch.no_grad():
        expected = {
            "truncate": lambda: plain(noise, first),
            "average": lambda: plain(noise, (first + second) / 2),
            "chain": lambda: plain(plain(noise, first), second),
        }[how]()
    given = miniature.given(pack.apply(miniature.model, plain, long_prompt=how), prompt, noise)
    torch.testing.assert_close(given, expected, **CLOSE)


def test_adapters_read_all_of_a_long_prompt(pack, miniature, adapters, draw):
    golden = pack.apply(miniature.model, adapters)
    long, short = (miniature.given(golden, miniature.encode(prompt), draw(3)) for prompt in (LONG, LONG[:40]))
    assert (long - short).abs().max() > 0.01


def logged(caplog):
    """The pack's own lines in the log."""
    return [record.message for record in caplog.records if record.name == "golden-noise"]


def test_of_several_prompts_the_moves_are_averaged(pack, miniature, network, draw, caplog):
    golden, noise = pack.apply(miniature.model, network), draw(3)
    one, two = miniature.encode(PROMPT), miniature.encode(OTHER)
    expected = (miniature.given(golden, one, noise) + miniature.given(golden, two, noise)) / 2
    torch.testing.assert_close(miniature.given(golden, [*one, *two], noise), expected, **CLOSE)
    assert len(logged(caplog)) == 1


LATER = [
    {"start_percent": 0.3},
    {"end_percent": 0.0},
    {"clip_start_percent": 0.3, "clip_end_percent": 1.0},
    {"clip_end_percent": 0.0},
]


@pytest.mark.parametrize("later", LATER)
def test_prompts_that_are_not_active_at_the_start_do_not_count(pack, miniature, network, draw, later):
    golden, noise, now = pack.apply(miniature.model, network), draw(3), miniature.encode(PROMPT, end_percent=0.3)
    given = miniature.given(golden, [*now, *miniature.encode(OTHER, **later)], noise)
    assert torch.equal(given, miniature.given(golden, now, noise))


def test_noise_without_a_prompt_is_left_alone(pack, miniature, network, draw, caplog):
    golden, noise = pack.apply(miniature.model, network), draw(3)
    for prompt in ([], miniature.encode(PROMPT, start_percent=0.5)):
        assert torch.equal(miniature.given(golden, prompt, noise), miniature.given(miniature.model, prompt, noise))
    assert len(logged(caplog)) == 2
    assert "no positive prompt" in logged(caplog)[0]


def test_no_noise_is_left_alone_silently(pack, miniature, network, draw, caplog):
    nothing = torch.zeros(1, 4, 8, 8)
    given = miniature.given(pack.apply(miniature.model, network), miniature.encode(PROMPT), nothing)
    assert torch.equal(given, nothing)
    assert logged(caplog) == []


def test_noise_that_an_image_gets_is_left_alone(pack, miniature, network, draw, caplog):
    golden, prompt, noise = pack.apply(miniature.model, network), miniature.encode(PROMPT), draw(3)
    image, sigma = torch.ones(1, 4, 8, 8), 3.0
    assert torch.equal(
        miniature.given(golden, prompt, noise, image, sigma), miniature.given(miniature.model, prompt, noise)
    )
    assert "starts from an image" in logged(caplog)[0]
    caplog.clear()
    golden_noise = miniature.given(golden, prompt, noise)
    assert torch.equal(miniature.given(golden, prompt, noise, image), golden_noise)  # drawn anew
    assert torch.equal(miniature.given(golden, prompt, noise, sigma=sigma), golden_noise)  # no image: another schedule
    assert logged(caplog) == []


def test_noise_of_a_video_is_left_alone(pack, caplog):
    import comfyui.noise as module

    video = torch.randn(1, 4, 2, 8, 8)
    assert module._reason_to_leave(video, video, torch.tensor([14.0]), None) == module.NO_IMAGE


def test_as_noise_it_is_the_same(pack, miniature, network, draw):
    from comfy_extras.nodes_custom_sampler import Noise_EmptyNoise, Noise_RandomNoise

    from comfyui.noise import GoldenSource
    from tests.comfyui.in_process import conds

    prompt, latent = miniature.encode(PROMPT), {"samples": torch.zeros(2, 4, 8, 8)}
    golden = pack.golden(network)
    source = GoldenSource(Noise_RandomNoise(3), golden, conds(prompt), miniature.model)
    assert source.seed == 3
    expected = miniature.given(pack.apply(miniature.model, network), prompt, draw(3, count=2))
    torch.testing.assert_close(source.generate_noise(latent), expected, **CLOSE)
    assert not GoldenSource(Noise_EmptyNoise(), golden, conds(prompt), miniature.model).generate_noise(latent).any()


def test_adapters_leave_the_model_as_it_was(pack, miniature, adapters, draw):
    prompt, noise = miniature.encode(PROMPT), draw(3)
    before = miniature.sample(miniature.model, prompt, noise)
    weights = {name: value.clone() for name, value in miniature.model.model.state_dict().items()}
    golden = miniature.sample(pack.apply(miniature.model, adapters), prompt, noise)
    after = miniature.sample(miniature.model, prompt, noise)
    assert torch.equal(before, after)
    assert (golden - before).abs().max() > 0.1
    assert all(torch.equal(value, weights[name]) for name, value in miniature.model.model.state_dict().items())


def test_adapters_use_the_bare_denoiser(pack, miniature, adapters, draw):
    """Guidance, caches and the like, which other nodes add to a MODEL, do not reach the network."""
    prompt, noise, model = miniature.encode(PROMPT), draw(3), miniature.model.clone()
    expected = miniature.given(pack.apply(miniature.model, adapters), prompt, noise)
    model.set_model_sampler_cfg_function(lambda args: args["cond"] * 0)
    model.set_model_unet_function_wrapper(lambda apply, args: 0 * args["input"])
    assert torch.equal(miniature.given(pack.apply(model, adapters), prompt, noise), expected)


def test_adapters_read_prompts_alone(pack, miniature, adapters, draw):
    """Nothing that other nodes hang on a prompt or on the MODEL takes part in the network's own call."""
    from comfy.patcher_extension import CallbacksMP

    from tests.comfyui.in_process import conds

    golden, noise, model, called = pack.golden(adapters), draw(3), miniature.model.clone(), []
    expected = golden.of(noise, conds(miniature.encode(PROMPT)), model)
    model.add_callback(CallbacksMP.ON_PRE_RUN, called.append)
    others = {"control": object(), "control_apply_to_uncond": True, "gligen": object(), "hooks": object()}
    assert torch.equal(golden.of(noise, conds(miniature.encode(PROMPT, **others)), model), expected)
    assert called == []


def test_adapters_use_the_models_own_loras(pack, miniature, adapters, draw):
    prompt, noise, model = miniature.encode(PROMPT), draw(3), miniature.model.clone()
    expected = miniature.given(pack.apply(miniature.model, adapters), prompt, noise)
    key = "diffusion_model.input_blocks.1.0.in_layers.2.weight"
    model.add_patches({key: (torch.ones_like(model.model.state_dict()[key]),)})
    assert (miniature.given(pack.apply(model, adapters), prompt, noise) - expected).abs().max() > 0.01


def test_the_networks_options_do_not_stick(pack, miniature, plain, draw):
    prompt, noise = miniature.encode(PROMPT), draw(3, size=(12, 8))
    first = pack.apply(miniature.model, plain, other_sizes="tile")
    expected = miniature.given(first, prompt, noise)
    miniature.given(pack.apply(miniature.model, plain, other_sizes="crop"), prompt, noise)
    assert torch.equal(miniature.given(first, prompt, noise), expected)


def test_a_network_of_another_model_is_refused(pack, miniature, draw):
    prompt = miniature.encode(PROMPT)
    cases = {
        "reads prompts of 77x768 (Stable Diffusion 1.5), this prompt has 16x128": NPNet((4, 8, 8), (77, 768)),
        "reads prompts of 77x1024 (Stable Diffusion 2.x or Hunyuan-DiT)": NPNet((4, 8, 8), (77, 1024)),
        "improves noise of 16x8x8, this noise has 4x8x8": NPNet((16, 8, 8), (16, 128)),
    }
    for message, network in cases.items():
        with pytest.raises(pack.UserError) as error:
            miniature.given(pack.apply(miniature.model, network.eval()), prompt, draw(3))
        assert message in str(error.value) and "\n" not in str(error.value)


def test_adapters_of_another_model_are_refused(pack, miniature, adapters, draw):
    from comfyui.adapters import DenoiserNPNet
    from comfyui.core.load import Adapters

    weights = {f"{layer}.{half}": value for layer, halves in adapters.layers.items() for half, value in halves.items()}
    name = "down_blocks.1.attentions.0.proj_in.lora_A.weight"
    other = {"down_blocks.7.x.lora_A.weight": weights[name], "down_blocks.7.x.lora_B.weight": weights[name].mT}
    wide = {name: torch.zeros(16, 95)}
    for change in (other, wide):
        broken = DenoiserNPNet(Adapters({}, weights | change, {}), "mine.safetensors")
        with pytest.raises(pack.UserError, match=r"mine\.safetensors was trained for another model: down_blocks"):
            miniature.given(pack.apply(miniature.model, broken), miniature.encode(PROMPT), draw(3))
    with pytest.raises(pack.UserError, match="only adapters"):
        DenoiserNPNet(Adapters({}, {"conv_in.weight": torch.zeros(1)}, {}), "whole")
    with pytest.raises(pack.UserError, match="connect it"):
        pack.golden(adapters).of(draw(3), [{"cross_attn": torch.zeros(1, 16, 128)}])


def test_a_model_of_another_family_is_refused(pack, miniature):
    from comfyui import families

    class Flux:
        diffusion_model = torch.nn.Identity()

    class Patcher:
        model = Flux()

    families.check_family(miniature.model)
    with pytest.raises(pack.UserError, match="this MODEL is a Flux"):
        families.check_family(Patcher())


def test_a_models_folder_that_is_not_there_does_no_harm(pack, monkeypatch, tmp_path):
    import folder_paths

    from comfyui import npnets

    (tmp_path / "npnet").symlink_to(tmp_path / "unmounted drive")
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, npnets.KIND, ([], set()))
    npnets.register_folders()
    assert npnets.names() == []
