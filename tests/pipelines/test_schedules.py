"""The moves between noise levels, against their definitions and diffusers' schedulers."""

import pytest
import torch
from diffusers import (
    DDIMInverseScheduler,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from golden_noise.errors import UserError
from golden_noise.pipelines.schedules import DDIM, Flow

SCHEDULE = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
}
ALPHAS = DDIMScheduler(**SCHEDULE).alphas_cumprod
ddim = DDIM(DDIMScheduler(**SCHEDULE).config)
flow = Flow(FlowMatchEulerDiscreteScheduler(shift=3.0), tokens=4096)  # SD 3.5's
levels = st.integers(0, 999)


def draw(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents and noise (2, 4, 8, 8)."""
    return torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(seed)).unbind(0)


@given(levels, levels, st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_there_and_back(start, end, seed):
    latents, noise = draw(seed)
    away = ddim.move(latents, noise, start, end)
    back = ddim.move(away, noise, end, start)
    # A move from nearly clean to nearly all noise scales rounding down and the way back scales it up by as much.
    tolerance = 1e-5 * max(1.0, float((ALPHAS[start] / ALPHAS[end]).sqrt()))
    torch.testing.assert_close(back, latents, atol=tolerance, rtol=0)


@given(levels, levels, st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_reaches_the_level_with_the_same_image_and_noise(start, end, seed):
    clean, noise = draw(seed)
    at = {t: ALPHAS[t].sqrt() * clean + (1 - ALPHAS[t]).sqrt() * noise for t in (start, end)}
    moved = ddim.move(at[start], noise, start, end)
    torch.testing.assert_close(moved, at[end], atol=1e-5, rtol=0)


@given(st.integers(2, 50), st.data())
@settings(deadline=None, max_examples=30)
def test_is_a_step_of_diffusers(steps, data):
    scheduler = DDIMScheduler(**SCHEDULE)
    scheduler.set_timesteps(steps)
    position = data.draw(st.integers(0, steps - 2))
    here, there = scheduler.timesteps[position], scheduler.timesteps[position + 1]
    latents, noise = draw(steps)
    expected = scheduler.step(noise, here, latents).prev_sample
    torch.testing.assert_close(ddim.move(latents, noise, here, there), expected, atol=1e-5, rtol=0)


@given(st.integers(2, 50), st.data())
@settings(deadline=None, max_examples=30)
def test_is_a_step_of_diffusers_inverse_scheduler(steps, data):
    scheduler = DDIMScheduler(**SCHEDULE)
    inverse = DDIMInverseScheduler(**SCHEDULE | {"set_alpha_to_one": True})
    for each in (scheduler, inverse):
        each.set_timesteps(steps)
    position = data.draw(st.integers(1, steps - 1))
    here, there = scheduler.timesteps[position], scheduler.timesteps[position - 1]
    latents, noise = draw(steps)
    expected = inverse.step(noise, there, latents).prev_sample
    torch.testing.assert_close(ddim.move(latents, noise, here, there), expected, atol=1e-5, rtol=0)


@given(st.floats(0, 1000), st.floats(0, 1000), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_flow_goes_there_and_back(start, end, seed):
    latents, velocity = draw(seed)
    back = flow.move(flow.move(latents, velocity, start, end), velocity, end, start)
    torch.testing.assert_close(back, latents, atol=1e-5, rtol=0)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_flow_reaches_the_level_with_the_same_image_and_noise(start, end, seed):
    clean, noise = draw(seed)
    at = {s: (1 - s) * clean + s * noise for s in (start, end)}
    moved = flow.move(at[start], noise - clean, 1000 * start, 1000 * end)
    torch.testing.assert_close(moved, at[end], atol=1e-5, rtol=0)


@given(st.integers(1, 50))
@settings(deadline=None, max_examples=20)
def test_flow_is_eulers_path_of_diffusers(steps):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(steps)
    assert torch.equal(flow.timesteps(steps), scheduler.timesteps)
    assert scheduler.timesteps[0] == flow.noisiest
    levels = [*flow.timesteps(steps).tolist(), 0]
    latents, _ = expected, _ = draw(steps)
    for step, timestep in enumerate(scheduler.timesteps):
        _, velocity = draw(1000 + step)
        expected = scheduler.step(velocity, timestep, expected).prev_sample
        latents = flow.move(latents, velocity, *levels[step : step + 2])
    torch.testing.assert_close(latents, expected, atol=1e-5, rtol=0)


def test_other_samplers_of_flows_are_refused():
    with pytest.raises(UserError, match="FlowMatchHeunDiscreteScheduler cannot be inverted"):
        Flow(FlowMatchHeunDiscreteScheduler(), tokens=4096)
