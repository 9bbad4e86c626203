"""Memory options: what they set, that the images stay, and what is refused."""

import pytest
import torch

from golden_noise.cli.config import job_config
from golden_noise.collecting.job import provenance
from golden_noise.errors import UserError
from golden_noise.noise import draw_noise
from golden_noise.pipelines.flux import FluxPipeline
from golden_noise.pipelines.memory import to_device
from golden_noise.pipelines.sdxl import SDXLPipeline

SETTINGS = {"height": 32, "width": 32, "steps": 2, "guidance": 3.0}
PROMPTS = ["a red circle", "two crosses"]


def load(folder, kind=SDXLPipeline, **memory):
    return kind.load(str(folder), device="cpu", memory=memory, **SETTINGS)


def draw(pipeline):
    return pipeline.sample(pipeline.encode(PROMPTS), draw_noise([0, 1], pipeline.latent_shape))


@pytest.fixture(scope="module")
def images(tiny_sdxl):
    return draw(load(tiny_sdxl))


@pytest.mark.parametrize("option", ["vae_slicing", "vae_tiling", "channels_last"])
def test_images_stay_the_same_but_for_rounding(tiny_sdxl, images, option):
    pipeline = load(tiny_sdxl, **{option: True})
    torch.testing.assert_close(draw(pipeline), images, atol=1e-4, rtol=0)
    vae, weight = pipeline.pipe.vae, pipeline.denoiser.conv_in.weight
    found = {
        "vae_slicing": vae.use_slicing,
        "vae_tiling": vae.use_tiling,
        "channels_last": weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous(),
    }
    assert [name for name, on in found.items() if on] == [option]


def test_compiling_is_asked_for_and_keeps_the_weights_names(tiny_sdxl):
    plain, compiled = load(tiny_sdxl), load(tiny_sdxl, compile=True)
    assert plain.denoiser._compiled_call_impl is None
    assert compiled.denoiser._compiled_call_impl is not None
    assert compiled.denoiser.state_dict().keys() == plain.denoiser.state_dict().keys()


def test_attention_backends_are_the_dispatchers(tiny_flux, tiny_sdxl):
    plain, native = load(tiny_flux, FluxPipeline), load(tiny_flux, FluxPipeline, attention="native")
    processors = [module.processor for module in native.denoiser.modules() if hasattr(module, "processor")]
    assert {processor._attention_backend.value for processor in processors} == {"native"}
    torch.testing.assert_close(draw(native), draw(plain), atol=1e-5, rtol=0)
    with pytest.raises(UserError, match=r"attention=nonsense cannot be used here") as error:
        load(tiny_flux, FluxPipeline, attention="nonsense")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"attention=native has no effect on a UNet2DConditionModel"):
        load(tiny_sdxl, attention="native")


@pytest.mark.parametrize("offload", ["model", "sequential", "disk"])
def test_offloading_needs_a_gpu(tiny_sdxl, offload):
    with pytest.raises(UserError, match=rf"pipeline\.model\.memory\.offload={offload}"):
        load(tiny_sdxl, offload=offload)


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_offloading_is_diffusers_own(tiny_sdxl, offload, monkeypatch):
    """Without a GPU the most that can be seen is what diffusers is asked for."""
    pipe, calls = load(tiny_sdxl).pipe, []
    for name in ("model", "sequential"):
        monkeypatch.setattr(
            pipe, f"enable_{name}_cpu_offload", lambda device, name=name: calls.append((name, str(device)))
        )
    monkeypatch.setattr(pipe, "to", lambda device: calls.append(("to", device)))
    to_device(pipe, pipe.unet, torch.device("cuda:0"), offload=offload)
    assert calls == [(offload, "cuda:0")]


@pytest.mark.parametrize(
    ("change", "select_by", "same"),
    [
        ("offload=model", "pickscore", True),
        ("vae_slicing=true", "pickscore", True),
        ("vae_tiling=true", "null", True),  # no image is drawn
        ("vae_tiling=true", "pickscore", False),
        ("attention=sage", "null", False),
    ],
)
def test_only_memory_options_that_change_pixels_decide_about_pairs(change, select_by, same):
    choices = ["pipeline=sdxl", "prompts=file", "prompts.path=x.txt", "metric=pickscore", "data_dir=pairs"]
    choices.append(f"collection.select_by={select_by}")
    plain, changed = (job_config("collect", [*choices, *more]) for more in ([], [f"pipeline.model.memory.{change}"]))
    assert (provenance(plain) == provenance(changed)) == same
