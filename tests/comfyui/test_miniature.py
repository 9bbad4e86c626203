"""The test's own loader: ComfyUI's classes compute what diffusers' do."""

import pytest
import torch

pytestmark = pytest.mark.comfy

PROMPTS = ["a blue triangle left of a red circle", "two crosses", "a photo of a green square above a purple cross"]


@torch.no_grad()
def test_the_denoiser_is_diffusers_own(miniature, pipe):
    generator = torch.Generator().manual_seed(0)
    x, embeds, pooled = (torch.randn(shape, generator=generator) for shape in ((3, 4, 8, 8), (3, 16, 128), (3, 64)))
    times = torch.tensor([1.0, 500.0, 999.0])
    sizes = torch.tensor([[32.0, 32, 0, 0, 32, 32]]).expand(3, -1)
    added = {"text_embeds": pooled, "time_ids": sizes}
    expected = pipe.unet(x, times, embeds, added_cond_kwargs=added).sample
    adm = miniature.model.model.encode_adm(pooled_output=pooled, width=64, height=64)
    ours = miniature.model.model.diffusion_model(x, times, context=embeds, y=adm)
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_text_encoders_are_diffusers_own(miniature, pipe, prompt):
    expected, _, pooled, _ = pipe.encode_prompt(prompt, device="cpu", do_classifier_free_guidance=False)
    ((embeds, options),) = miniature.encode(prompt)
    torch.testing.assert_close(embeds, expected, atol=2e-5, rtol=0)
    torch.testing.assert_close(options["pooled_output"], pooled, atol=2e-5, rtol=0)


def test_a_long_prompt_has_whole_chunks(miniature):
    ((embeds, _),) = miniature.encode(", ".join(PROMPTS))
    assert embeds.shape == (1, 32, 128)


@torch.no_grad()
def test_images_and_latents_are_the_vaes(miniature, pipe):
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    images = miniature.vae.decode(latents)
    assert images.shape == (2, 32, 32, 3)
    assert images.min() >= 0 and images.max() <= 1
    assert miniature.vae.encode(images).shape == latents.shape
