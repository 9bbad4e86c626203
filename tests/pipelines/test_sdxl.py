"""SDXLPipeline against the diffusers pipeline that it wraps."""

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
)

from golden_noise.errors import UserError
from golden_noise.noise import draw_noise, sampler_generators
from golden_noise.search.full_inversion import FullInversion
from golden_noise.search.redenoise import Redenoise
from golden_noise.search.zigzag import Zigzag

PROMPTS = ["a red circle above a blue square", "two crosses"]
NOISE = draw_noise([0, 1], (4, 8, 8))


def parts(prompt):
    """In diffusers' order."""
    return prompt.embeds, prompt.negative.embeds, prompt.pooled, prompt.negative.pooled


@pytest.fixture(scope="module")
def prompt(sdxl):
    return sdxl.encode(PROMPTS)


@pytest.fixture(scope="module")
def plain(tiny_sdxl):
    pipe = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def predict(sdxl, latents, timestep, embeds, pooled):
    """The denoiser's raw output, called as SDXL's paper conditions it."""
    time_ids = torch.tensor([[32, 32, 0, 0, 32, 32.0]]).expand(len(latents), -1)
    with torch.no_grad():
        return sdxl.pipe.unet(
            latents, timestep, embeds, added_cond_kwargs={"text_embeds": pooled, "time_ids": time_ids}
        ).sample


def test_shapes_and_settings(sdxl):
    assert sdxl.latent_shape == (4, 8, 8)
    assert sdxl.device.type == "cpu"
    assert sdxl.dtype == torch.float32


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_sample_is_the_diffusers_call_bit_for_bit(sdxl, prompt, plain, guidance):
    expected = plain(
        prompt=PROMPTS,
        latents=NOISE,
        num_inference_steps=3,
        guidance_scale=guidance,
        height=32,
        width=32,
        output_type="pt",
    ).images
    images = sdxl.sample(prompt, NOISE, steps=3, guidance=guidance)
    assert torch.equal(images, expected)
    assert images.shape == (2, 3, 32, 32)
    assert images.dtype == torch.float32
    assert 0 <= images.min() < images.max() <= 1


def test_sample_takes_steps_and_guidance_from_the_config(sdxl, prompt):
    images = sdxl.sample(prompt, NOISE)
    assert torch.equal(images, sdxl.sample(prompt, NOISE, steps=4, guidance=3.0))
    assert not torch.equal(images, sdxl.sample(prompt, NOISE, steps=4, guidance=2.0))
    assert not torch.equal(images, sdxl.sample(prompt, NOISE, steps=3, guidance=3.0))


def test_sample_rescales_guidance_as_diffusers_does(build, plain, prompt):
    images = build(guidance_rescale=0.7).sample(prompt, NOISE)
    expected = plain(
        prompt=PROMPTS,
        latents=NOISE,
        num_inference_steps=4,
        guidance_scale=3.0,
        guidance_rescale=0.7,
        output_type="pt",
    ).images
    assert torch.equal(images, expected)
    assert not torch.equal(images, build().sample(prompt, NOISE))


def test_order_of_the_batch_does_not_matter(sdxl, prompt):
    images = sdxl.sample(prompt, NOISE)
    torch.testing.assert_close(sdxl.sample(prompt[[1, 0]], NOISE.flip(0)).flip(0), images, atol=1e-5, rtol=0)
    torch.testing.assert_close(sdxl.sample(prompt[:1], NOISE[:1]), images[:1], atol=1e-5, rtol=0)
    assert (sdxl.sample(prompt[[1, 0]], NOISE) - images).abs().max() > 1e-3  # the prompt does


def test_stochastic_samplers_follow_their_generators(build, sdxl, prompt):
    def draw(seeds):
        sampler = build(EulerAncestralDiscreteScheduler)
        return sampler.sample(prompt, NOISE, generator=sampler_generators(seeds))

    assert torch.equal(draw([0, 1]), draw([0, 1]))
    assert not torch.equal(draw([0, 1]), draw([2, 1]))


@pytest.mark.parametrize("shape", [(2, 4, 16, 16), (2, 3, 8, 8), (2, 4, 8), (4, 8, 8)])
def test_latents_of_another_size_are_refused(sdxl, prompt, shape):
    with pytest.raises(UserError, match=r"\(4, 8, 8\)"):
        sdxl.sample(prompt, torch.zeros(shape))


def test_encode_is_encode_prompt(sdxl, plain, prompt):
    expected = plain.encode_prompt(PROMPTS, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True)
    assert all(torch.equal(part, tensor) for part, tensor in zip(parts(prompt), expected, strict=True))
    assert prompt.embeds.shape == (2, 16, 128)
    assert not prompt.negative.embeds.any()  # force_zeros_for_empty_prompt


def test_batch_encodes_like_singles(sdxl, prompt):
    singles = [parts(sdxl.encode([text])) for text in PROMPTS]
    for part, *alone in zip(parts(prompt), *singles, strict=True):
        torch.testing.assert_close(part, torch.cat(alone), atol=1e-5, rtol=0)


@pytest.mark.parametrize("steps", [1, 4, 10, 50])
def test_timesteps_and_alphas_are_diffusers(sdxl, plain, alphas, steps):
    plain.scheduler.set_timesteps(steps)
    assert torch.equal(sdxl.schedule.timesteps(steps), plain.scheduler.timesteps)
    assert sdxl.schedule.timesteps(steps).dtype == torch.int64
    torch.testing.assert_close(sdxl.schedule.alphas_cumprod, alphas, atol=1e-6, rtol=0)


def test_ddim_levels_do_not_depend_on_the_sampler(sdxl, build):
    euler = build(EulerDiscreteScheduler)
    assert torch.equal(euler.schedule.timesteps(10), sdxl.schedule.timesteps(10))
    assert torch.equal(euler.schedule.alphas_cumprod, sdxl.schedule.alphas_cumprod)


def test_spacing_is_the_models_own(sdxl, build):
    trailing = build()
    trailing.pipe.scheduler = DDIMScheduler.from_config(sdxl.pipe.scheduler.config, timestep_spacing="trailing")
    assert trailing.schedule.timesteps(4).tolist() == [999, 749, 499, 249]
    assert sdxl.schedule.timesteps(4).tolist() == [751, 501, 251, 1]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(
    "settings, named",
    [
        ({"timestep_spacing": "linspace"}, "timestep_spacing=linspace"),
        ({"timestep_spacing": "trailing", "rescale_betas_zero_snr": True}, "zero terminal SNR"),
    ],
)
def test_schedules_that_cannot_be_inverted_are_refused(sdxl, build, prompt, prediction, settings, named):
    pipeline = build(prediction=prediction)
    pipeline.pipe.scheduler = DDIMScheduler.from_config(pipeline.pipe.scheduler.config, **settings)
    for search in (Redenoise(10), FullInversion(2), Zigzag(2)):
        with pytest.raises(UserError, match=named) as error:
            search.search(NOISE, prompt, pipeline)
        assert "\n" not in str(error.value)


def test_zero_terminal_snr_is_fine_where_it_is_not_reached(build, prompt):
    pipeline = build()
    settings = {"timestep_spacing": "leading", "rescale_betas_zero_snr": True}
    pipeline.pipe.scheduler = DDIMScheduler.from_config(pipeline.pipe.scheduler.config, **settings)
    assert Redenoise(10).search(NOISE, prompt, pipeline).isfinite().all()


def test_the_denoiser_is_told_the_height_before_the_width(build, prompt):
    """As diffusers does."""
    pipeline, told = build(height=32, width=64), []
    noise = draw_noise([0, 1], pipeline.latent_shape)
    hook = pipeline.denoiser.register_forward_pre_hook(
        lambda module, args, options: told.append(options["added_cond_kwargs"]["time_ids"].tolist()), with_kwargs=True
    )
    pipeline.predict(noise, 801, prompt, 1)
    pipeline.sample(prompt, noise, steps=1, guidance=1.0)
    hook.remove()
    assert told == [[[32, 64, 0, 0, 32, 64]] * 2] * 2


def test_predicted_noise_is_guided(sdxl, prompt):
    unconditional = predict(sdxl, NOISE, 801, prompt.negative.embeds, prompt.negative.pooled)
    conditional = predict(sdxl, NOISE, 801, prompt.embeds, prompt.pooled)
    assert (conditional - unconditional).abs().max() > 1e-3
    for guidance in (0.0, 0.5, 1.0, 5.5):
        noise = sdxl.predict(NOISE, 801, prompt, guidance)
        expected = unconditional + guidance * (conditional - unconditional)
        torch.testing.assert_close(noise, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("guidance, rows", [(0, 2), (1, 2), (1.0, 2), (5.5, 4)])
def test_guidance_costs_a_second_branch_only_where_it_needs_one(sdxl, prompt, guidance, rows):
    calls = []
    hook = sdxl.denoiser.register_forward_hook(lambda module, args, output: calls.append(len(args[0])))
    sdxl.predict(NOISE, 801, prompt, guidance)
    hook.remove()
    assert calls == [rows]


def test_guidance_rescale_follows_its_formula(build, prompt):
    pipeline = build(guidance_rescale=0.7)
    conditional = pipeline.predict(NOISE, 801, prompt, 1)
    guided = build().predict(NOISE, 801, prompt, 5.5)
    factor = conditional.flatten(1).std(1) / guided.flatten(1).std(1)
    expected = 0.7 * guided * factor[:, None, None, None] + 0.3 * guided
    torch.testing.assert_close(pipeline.predict(NOISE, 801, prompt, 5.5), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("guidance", [-1.0, 0.0, 0.5, 1.0])
def test_only_guidance_above_one_is_rescaled(build, prompt, guidance):
    plain, rescaled = (build(guidance_rescale=phi).predict(NOISE, 801, prompt, guidance) for phi in (0.0, 0.7))
    assert torch.equal(plain, rescaled)


def test_guidance_leads_away_from_the_negative_prompt(build, plain, prompt):
    pipeline = build(negative_prompt="a blue square")
    negative, other = pipeline.encode(PROMPTS), pipeline.encode(["a blue square"] * 2)
    assert torch.equal(negative.embeds, prompt.embeds)
    assert torch.equal(negative.negative.embeds, other.embeds)
    settings = {"num_inference_steps": 4, "guidance_scale": 3.0, "output_type": "pt"}
    images = plain(PROMPTS, negative_prompt=["a blue square"] * 2, latents=NOISE, **settings).images
    assert torch.equal(pipeline.sample(negative, NOISE), images)
    assert not torch.equal(pipeline.sample(prompt, NOISE), images)
    gap = pipeline.predict(NOISE, 801, negative, 3.0) - pipeline.predict(NOISE, 801, prompt, 3.0)
    assert gap.abs().max() > 1e-3
    torch.testing.assert_close(
        pipeline.predict(NOISE, 801, negative, 0.0), pipeline.predict(NOISE, 801, other, 1.0), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("timestep", [1, 501, 999])
def test_velocity_becomes_the_noise_in_the_latents(build, alphas, timestep):
    clean, noise, alpha = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8), alphas[timestep]
    latents = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
    velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
    pipeline = build(prediction="v_prediction")
    torch.testing.assert_close(pipeline.schedule.prediction(velocity, latents, timestep), noise, atol=1e-5, rtol=0)


def test_velocity_model_predicts_noise(build, prompt, alphas):
    raw, alpha = build().predict(NOISE, 801, prompt, 5.5), alphas[801]
    noise = build(prediction="v_prediction").predict(NOISE, 801, prompt, 5.5)
    torch.testing.assert_close(noise, alpha.sqrt() * raw + (1 - alpha).sqrt() * NOISE, atol=1e-5, rtol=1e-5)


def test_other_parameterisations_are_refused(build, prompt):
    with pytest.raises(UserError, match=r"'sample'.*'epsilon'"):
        build(prediction="sample").predict(NOISE, 801, prompt, 1)


def test_half_latents_give_float32_noise(sdxl, prompt):
    noise = sdxl.predict(NOISE.half(), 801, prompt, 1)
    assert noise.dtype == torch.float32
    torch.testing.assert_close(noise, sdxl.predict(NOISE, 801, prompt, 1), atol=0.02, rtol=0)
