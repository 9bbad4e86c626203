"""golden_latents with a real diffusers pipeline."""

import numpy as np
import pytest
import torch
from diffusers import (
    FluxPipeline,
    HunyuanDiTPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)

from golden_noise.errors import UserError
from golden_noise.generation.latents import golden_latents
from golden_noise.noise import draw_noise
from golden_noise.npnet import DenoiserNPNet, NPNet
from golden_noise.pipelines.sdxl import SDXLPipeline

PROMPTS = ["a red circle", "two crosses"]


@pytest.fixture(scope="module")
def pipe(tiny_sdxl):
    return StableDiffusionXLPipeline.from_pretrained(tiny_sdxl, add_watermarker=False)


@pytest.fixture(scope="module")
def npnet():
    torch.manual_seed(0)
    npnet = NPNet((4, 8, 8), (16, 128), fit="tile")
    with torch.no_grad():
        for parameter in npnet.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return npnet.eval()


def test_it_is_the_network_on_the_seeds_noise(npnet, pipe):
    latents = golden_latents(npnet, pipe, PROMPTS, [3, 4])
    embeds, *_ = pipe.encode_prompt(PROMPTS, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True)
    with torch.no_grad():
        expected = npnet(draw_noise([3, 4], (4, 8, 8)), embeds)
    torch.testing.assert_close(latents, expected)
    assert not latents.requires_grad


def test_the_pipeline_draws_from_it(npnet, pipe):
    pipe.set_progress_bar_config(disable=True)
    latents = golden_latents(npnet, pipe, PROMPTS, [3, 4])
    images = pipe(PROMPTS, latents=latents, num_inference_steps=2, output_type="pt").images
    assert images.shape == (2, 3, 32, 32)
    wide = golden_latents(npnet, pipe, "a red circle", 5, height=32, width=64)
    assert wide.shape == (1, 4, 8, 16)
    images = pipe("a red circle", latents=wide, height=32, width=64, num_inference_steps=2, output_type="pt").images
    assert images.shape == (1, 3, 32, 64)


def test_it_loads_a_network_from_where_it_is(npnet, pipe, tmp_path):
    npnet.save_pretrained(tmp_path / "run/npnet/best")
    latents = golden_latents(str(tmp_path / "run"), pipe, PROMPTS, [3, 4])
    torch.testing.assert_close(latents, golden_latents(npnet.eval(), pipe, PROMPTS, [3, 4]))


def test_one_prompt_serves_several_seeds(npnet, pipe):
    latents = golden_latents(npnet, pipe, PROMPTS[0], [3, 4])
    torch.testing.assert_close(latents[1:], golden_latents(npnet, pipe, PROMPTS[0], 4), atol=1e-5, rtol=1e-5)


def test_seeds_may_be_numpys(npnet, pipe):
    expected = golden_latents(npnet, pipe, PROMPTS[0], [0, 1])
    assert torch.equal(golden_latents(npnet, pipe, PROMPTS[0], np.arange(2)), expected)
    torch.testing.assert_close(golden_latents(npnet, pipe, PROMPTS[0], np.int64(1)), expected[1:], atol=1e-5, rtol=1e-5)


def test_latents_have_the_pipelines_dtype(npnet, tiny_sdxl):
    half = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl, add_watermarker=False, dtype=torch.bfloat16)
    latents = golden_latents(npnet, half, PROMPTS, [3, 4])
    assert latents.dtype == torch.bfloat16
    half.set_progress_bar_config(disable=True)
    half(PROMPTS, latents=latents, num_inference_steps=1, output_type="latent")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_pipeline_gets_noise_that_is_rounded_once(npnet, tiny_sdxl, dtype):
    half = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl, add_watermarker=False, dtype=dtype)
    seen = []
    hook = npnet.register_forward_hook(lambda _, given, golden: seen.append((given[0], golden)))
    latents = golden_latents(npnet, half, PROMPTS, [3, 4])
    hook.remove()
    ((noise, golden),) = seen
    assert torch.equal(noise, draw_noise([3, 4], (4, 8, 8)).to(dtype).float())  # as in every job
    assert golden.dtype == torch.float32
    assert torch.equal(latents, golden.to(dtype))


def test_stable_diffusion_gets_latents_too(tiny_sd):
    pipe = StableDiffusionPipeline.from_pretrained(tiny_sd)
    pipe.set_progress_bar_config(disable=True)
    torch.manual_seed(0)
    npnet = NPNet((4, 8, 8), (16, 64))
    latents = golden_latents(npnet, pipe, PROMPTS, [3, 4])
    torch.testing.assert_close(latents, draw_noise([3, 4], (4, 8, 8)))  # a new network is the identity
    assert pipe(PROMPTS, latents=latents, num_inference_steps=1, output_type="pt").images.shape == (2, 3, 32, 32)
    pipe.unet.register_to_config(sample_size=[8, 12])
    assert golden_latents(NPNet((4, 8, 12), (16, 64)), pipe, PROMPTS, [3, 4]).shape == (2, 4, 8, 12)


def test_flows_get_latents_in_the_form_of_their_call(tiny_sd3, tiny_flux):
    for kind, folder, shape in [
        (StableDiffusion3Pipeline, tiny_sd3, (272, 32)),
        (FluxPipeline, tiny_flux, (512, 32)),
    ]:
        pipe = kind.from_pretrained(folder)
        pipe.set_progress_bar_config(disable=True)
        size = {"height": 32, "width": 32}
        latents = golden_latents(NPNet((16, 8, 8), shape), pipe, PROMPTS, [3, 4], **size)
        images = pipe(PROMPTS, latents=latents, num_inference_steps=1, output_type="pt", **size).images
        assert images.shape == (2, 3, 32, 32)


@pytest.mark.parametrize("config", [{}, {"disable": False, "desc": "drawing"}])
def test_the_pipeline_keeps_its_progress_bar_and_its_images(npnet, tiny_sdxl, config):
    pipe = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl, add_watermarker=False)
    pipe.set_progress_bar_config(**config)
    before = dict(vars(pipe.image_processor))
    golden_latents(npnet, pipe, PROMPTS, [3, 4])
    assert pipe._progress_bar_config == config
    assert vars(pipe.image_processor) == before


def test_mistakes_are_named(npnet, pipe):
    with pytest.raises(UserError, match="2 prompts but 3 seeds"):
        golden_latents(npnet, pipe, PROMPTS, [1, 2, 3])
    with pytest.raises(UserError, match="0 prompts but 0 seeds"):
        golden_latents(npnet, pipe, [], [])
    with pytest.raises(UserError, match=r"NPNet.*StableDiffusionXLPipeline"):
        golden_latents(npnet, npnet, PROMPTS, [1, 2])
    with pytest.raises(UserError, match="0 prompts but 1 seeds"):
        golden_latents(npnet, pipe, seeds=3)


def encoded(pipe, prompts=PROMPTS):
    """What the pipeline's text encoders give, by the names of its call."""
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    return dict(zip(names, pipe.encode_prompt(prompts, device="cpu", negative_prompt=[""] * len(prompts)), strict=True))


def test_embeddings_serve_as_prompts(npnet, pipe):
    given, expected = encoded(pipe), golden_latents(npnet, pipe, PROMPTS, [3, 4])
    assert torch.equal(golden_latents(npnet, pipe, seeds=[3, 4], **given), expected)
    alone = {"prompt_embeds": given["prompt_embeds"].to(torch.float64)}
    torch.testing.assert_close(golden_latents(npnet, pipe, seeds=[3, 4], **alone), expected)
    one = {name: tensor[:1] for name, tensor in given.items()}
    repeated = golden_latents(npnet, pipe, seeds=[3, 4], **one)
    torch.testing.assert_close(repeated, golden_latents(npnet, pipe, PROMPTS[0], [3, 4]))


def test_embeddings_need_no_text_encoders(npnet, tiny_sdxl):
    pipe = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl, add_watermarker=False)
    given = encoded(pipe)
    expected = golden_latents(npnet, pipe, PROMPTS, [3, 4])
    bare = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl, text_encoder=None, text_encoder_2=None)
    latents = golden_latents(npnet, bare, seeds=[3, 4], **given)
    assert torch.equal(latents, expected)
    bare.set_progress_bar_config(disable=True)
    assert bare(**given, latents=latents, num_inference_steps=1, output_type="pt").images.shape == (2, 3, 32, 32)


def test_embeddings_of_long_prompts(pipe):
    torch.manual_seed(0)
    npnet = NPNet((4, 8, 8), (16, 128), long_prompt="average").eval()
    long = torch.randn(1, 48, 128)
    mean = long.reshape(1, 3, 16, 128).mean(dim=1)
    with torch.no_grad():
        for parameter in npnet.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    found, expected = (golden_latents(npnet, pipe, seeds=[3], prompt_embeds=embeds) for embeds in (long, mean))
    torch.testing.assert_close(found, expected)


def test_networks_that_call_the_denoiser_need_all_embeddings(tiny_sdxl):
    pipeline = SDXLPipeline.load(str(tiny_sdxl), device="cpu", height=32, width=32, steps=1, guidance=1.0)
    network, given = DenoiserNPNet(pipeline, 2, ["to_q"]), encoded(pipeline.pipe)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    expected = golden_latents(network, pipeline.pipe, PROMPTS, [3, 4])
    assert torch.equal(golden_latents(network, pipeline.pipe, seeds=[3, 4], **given), expected)
    with pytest.raises(UserError, match="pooled_prompt_embeds is missing"):
        golden_latents(network, pipeline.pipe, seeds=[3, 4], prompt_embeds=given["prompt_embeds"])


def test_embeddings_of_the_other_families(tiny_sd, tiny_sd3, tiny_flux, tiny_hunyuan):
    for kind, folder, latent, embeds, size in [
        (StableDiffusionPipeline, tiny_sd, (4, 8, 8), (16, 64), 32),
        (StableDiffusion3Pipeline, tiny_sd3, (16, 8, 8), (272, 32), 32),
        (FluxPipeline, tiny_flux, (16, 8, 8), (512, 32), 32),
        (HunyuanDiTPipeline, tiny_hunyuan, (4, 8, 8), (77, 32), 64),
    ]:
        pipe, npnet = kind.from_pretrained(folder), NPNet(latent, embeds)
        size = {"height": size, "width": size}
        expected = golden_latents(npnet, pipe, PROMPTS, [3, 4], **size)
        found = golden_latents(npnet, pipe, seeds=[3, 4], prompt_embeds=torch.randn(2, *embeds), **size)
        torch.testing.assert_close(found, expected)  # a new network is the identity


@pytest.mark.parametrize(
    "change, words",
    [
        ({"prompts": PROMPTS}, "prompts and prompt_embeds are both given"),
        ({"prompt_embeds": None}, "prompt_embeds is missing"),
        ({"prompt_embeds": torch.zeros(3, 16, 128)}, "(2 or 1 prompts, tokens, numbers) for 2 seeds, not (3, 16, 128)"),
        ({"prompt_embeds": torch.zeros(16, 128)}, "for 2 seeds, not (16, 128)"),
        ({"prompt_embeds": torch.zeros(0, 16, 128)}, "for 2 seeds, not (0, 16, 128)"),
        ({"prompt_embeds": [1.0]}, "for 2 seeds, not list"),
        ({"prompt_embeds": torch.zeros(2, 16, 64)}, "has 64 numbers per token, this denoiser reads 128"),
        ({"prompt_embeds": torch.full((2, 16, 128), torch.nan)}, "not finite"),
        ({"pooled_prompt_embeds": torch.zeros(2, 1, 64)}, "pooled_prompt_embeds must be a tensor (2 or 1 prompts, num"),
        ({"prompt_attention_mask": torch.zeros(2, 16)}, "takes prompt_embeds, pooled_prompt_embeds and no prompt_att"),
        ({"seeds": []}, "0 seeds"),
    ],
)
def test_embeddings_that_do_not_fit_are_named(npnet, pipe, change, words):
    given = {"seeds": [3, 4], **encoded(pipe), **change}
    given = {name: value for name, value in given.items() if value is not None}
    with pytest.raises(UserError) as raised:
        golden_latents(npnet, pipe, **given)
    assert words in str(raised.value) and "\n" not in str(raised.value)
