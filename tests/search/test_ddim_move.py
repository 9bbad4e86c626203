import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from golden_noise.search.base import ddim_move

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
levels = st.integers(0, 999)


def draw(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents and noise (2, 4, 8, 8)."""
    return torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(seed)).unbind(0)


@given(levels, levels, st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_there_and_back(start, end, seed):
    latents, noise = draw(seed)
    away = ddim_move(latents, noise, ALPHAS[start], ALPHAS[end])
    back = ddim_move(away, noise, ALPHAS[end], ALPHAS[start])
    # A move from nearly clean to nearly all noise scales rounding down and the way back scales it up by as much.
    tolerance = 1e-5 * max(1.0, float((ALPHAS[start] / ALPHAS[end]).sqrt()))
    torch.testing.assert_close(back, latents, atol=tolerance, rtol=0)


@given(levels, levels, st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_reaches_the_level_with_the_same_image_and_noise(start, end, seed):
    clean, noise = draw(seed)
    at = {t: ALPHAS[t].sqrt() * clean + (1 - ALPHAS[t]).sqrt() * noise for t in (start, end)}
    moved = ddim_move(at[start], noise, ALPHAS[start], ALPHAS[end])
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
    torch.testing.assert_close(ddim_move(latents, noise, ALPHAS[here], ALPHAS[there]), expected, atol=1e-5, rtol=0)


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
    torch.testing.assert_close(ddim_move(latents, noise, ALPHAS[here], ALPHAS[there]), expected, atol=1e-5, rtol=0)
