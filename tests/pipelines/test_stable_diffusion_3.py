"""SD3Pipeline and the searches on flow matching: what test_contract.py does not see of them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from golden_noise.errors import UserError
from golden_noise.noise import draw_noise
from golden_noise.npnet import DenoiserNPNet
from golden_noise.pipelines.hunyuan_dit import HunyuanDiTPipeline
from golden_noise.pipelines.path import SamplerPath
from golden_noise.pipelines.stable_diffusion_3 import SD3Pipeline
from golden_noise.search.full_inversion import FullInversion
from golden_noise.search.redenoise import Redenoise
from golden_noise.search.zigzag import Zigzag

SETTINGS = {"height": 32, "width": 32, "steps": 2, "guidance": 3.0}
PROMPTS = ["a red circle above a blue square", "two crosses"]
NOISE = draw_noise([0, 1], (16, 8, 8))


class Ideal(SD3Pipeline):
    """Its denoiser sees one velocity everywhere, and `gap` times a direction where there is a prompt.

    `slope` times the latents comes on top.
    """

    velocity, direction = draw_noise([7, 8], (16, 8, 8)).split(1)
    gap = slope = 0.0

    def denoise(self, latents, timestep, prompt):
        there = (prompt.pooled == self.conditional).all(1)[:, None, None, None]
        return self.velocity + self.gap * self.direction * there + self.slope * latents


@pytest.fixture(scope="module")
def sd3(tiny_sd3):
    return SD3Pipeline.load(str(tiny_sd3), device="cpu", **SETTINGS)


@pytest.fixture(scope="module")
def prompt(sd3):
    return sd3.encode(PROMPTS[:1] * 2)


@pytest.fixture(scope="module")
def ideal(sd3, prompt):
    pipeline = Ideal(sd3.pipe, **SETTINGS)
    pipeline.conditional = prompt.pooled[:1]
    return pipeline


@pytest.mark.parametrize("kind", [Redenoise, FullInversion, Zigzag])
@given(guidance=st.sampled_from([0.0, 1.0, 5.5]), steps=st.integers(2, 30))
@settings(deadline=None, max_examples=10)
def test_one_guidance_and_a_constant_velocity_leave_the_noise(ideal, prompt, kind, guidance, steps):
    ideal.gap, ideal.slope = 0.1, 0.0
    golden = kind(steps, denoising_guidance=guidance, inversion_guidance=guidance).search(NOISE, prompt, ideal)
    torch.testing.assert_close(golden, NOISE, atol=1e-5, rtol=0)


def test_the_guidance_gap_is_written_into_the_noise(ideal, prompt):
    ideal.gap, ideal.slope = 0.1, 0.0
    start, following = ideal.schedule.timesteps(10)[:2] / 1000
    golden = Redenoise(10, denoising_guidance=5.5, inversion_guidance=1.0).search(NOISE, prompt, ideal)
    expected = (following - start) * 4.5 * 0.1 * ideal.direction
    torch.testing.assert_close(golden - NOISE, expected.expand_as(NOISE), atol=1e-5, rtol=0)
    assert expected.abs().max() > 0.01


@given(slope=st.floats(-0.5, 0.5), steps=st.integers(2, 20))
@settings(deadline=None, max_examples=10)
def test_refinements_invert_a_linear_denoiser(ideal, prompt, slope, steps):
    ideal.gap, ideal.slope = 0.1, slope
    golden = FullInversion(steps, 2.5, 2.5, refinements=3).search(NOISE, prompt, ideal)
    torch.testing.assert_close(golden, NOISE, atol=2e-5, rtol=0)


def test_a_refined_inversion_undoes_the_real_denoiser(sd3, prompt):
    path = SamplerPath.of(sd3, prompt, 10)
    below = path.down(NOISE, 0, 3.0)
    errors = [(path.up(below, 0, 3.0, refinements) - NOISE).abs().max() for refinements in (0, 12)]
    assert errors[1] < 1e-5 < errors[0]


def test_dynamic_shifting_is_the_pipelines_own(tiny_sd3):
    dynamic = {"name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True}
    pipeline = SD3Pipeline.load(str(tiny_sd3), device="cpu", scheduler=dynamic, **SETTINGS)
    pipeline.sample(pipeline.encode(PROMPTS), NOISE, steps=4)
    assert torch.equal(pipeline.schedule.timesteps(4), pipeline.pipe.scheduler.timesteps)


def test_guidance_rescale_is_refused(sd3):
    with pytest.raises(UserError, match=r"guidance_rescale=0\.5 must be 0"):
        SD3Pipeline(sd3.pipe, **SETTINGS, guidance_rescale=0.5)


def test_another_sampler_draws_but_is_not_inverted(tiny_sd3):
    other = {"name": "FlowMatchHeunDiscreteScheduler"}
    pipeline = SD3Pipeline.load(str(tiny_sd3), device="cpu", scheduler=other, **SETTINGS)
    prompt = pipeline.encode(PROMPTS)
    assert pipeline.sample(prompt, NOISE).isfinite().all()
    with pytest.raises(UserError, match="FlowMatchHeunDiscreteScheduler cannot be inverted"):
        Redenoise(4).search(NOISE, prompt, pipeline)


def test_its_denoiser_can_predict_golden_noise(sd3):
    torch.manual_seed(0)
    npnet, prompt = DenoiserNPNet(sd3, 4, ["to_q"]), sd3.encode(PROMPTS)
    assert torch.equal(npnet.golden(NOISE, prompt), NOISE)
    with torch.no_grad():
        for parameter in npnet.parameters():
            parameter += 0.1
        assert (npnet.golden(NOISE, prompt) - NOISE).abs().max() > 1e-2


def test_a_denoiser_that_takes_more_than_pairs_hold_cannot(tiny_hunyuan):
    pipeline = HunyuanDiTPipeline.load(str(tiny_hunyuan), device="cpu", height=64, width=64, steps=2, guidance=3.0)
    with pytest.raises(UserError, match="pairs do not hold its embeds_2, mask, mask_2"):
        DenoiserNPNet(pipeline, 4, ["to_q"])
