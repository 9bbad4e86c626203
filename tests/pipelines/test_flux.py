"""FluxPipeline: what test_contract.py does not see of it."""

import pytest
import torch

from golden_noise.errors import UserError
from golden_noise.noise import draw_noise
from golden_noise.pipelines.flux import FluxPipeline
from golden_noise.search.redenoise import Redenoise

SETTINGS = {"height": 32, "width": 48, "steps": 2, "guidance": 3.5}


@pytest.fixture(scope="module")
def flux(tiny_flux):
    return FluxPipeline.load(str(tiny_flux), device="cpu", **SETTINGS)


def test_noise_has_the_shape_of_latents_not_of_tokens(flux):
    assert flux.latent_shape == (16, 8, 12)
    noise = draw_noise([0, 1], flux.latent_shape)
    tokens = flux.pack(noise)
    assert tokens.shape == (2, 4 * 6, 64)
    assert torch.equal(flux.pipe._unpack_latents(tokens, 32, 48, flux.pipe.vae_scale_factor), noise)


def test_guidance_is_told_to_the_denoiser(flux):
    noise, prompt = draw_noise([0], flux.latent_shape), flux.encode(["a red circle"])
    calls = []
    hook = flux.denoiser.register_forward_pre_hook(
        lambda module, args, options: calls.append((len(args[0]), options["guidance"].item())), with_kwargs=True
    )
    Redenoise(4, denoising_guidance=5.5, inversion_guidance=0.0).search(noise, prompt, flux)
    hook.remove()
    assert calls == [(1, 5.5), (1, 0.0)]


def test_the_levels_follow_the_size_of_the_image(tiny_flux, flux):
    larger = FluxPipeline.load(str(tiny_flux), device="cpu", **SETTINGS | {"height": 512, "width": 512})
    assert (larger.schedule.timesteps(4)[1:] > flux.schedule.timesteps(4)[1:]).all()


@pytest.mark.parametrize("option", [{"negative_prompt": "dull"}, {"guidance_rescale": 0.5}])
def test_what_distilled_guidance_does_not_have(flux, option):
    with pytest.raises(UserError, match=next(iter(option))):
        FluxPipeline(flux.pipe, **SETTINGS, **option)
