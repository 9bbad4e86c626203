"""Full inversion and zigzag: exact where the denoiser is known, and what they are made of."""

import itertools

import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from golden_noise.errors import UserError
from golden_noise.noise import draw_noise
from golden_noise.pipelines.path import SamplerPath, secant
from golden_noise.pipelines.sdxl import SDXLPipeline
from golden_noise.search.full_inversion import FullInversion
from golden_noise.search.redenoise import Redenoise
from golden_noise.search.zigzag import Zigzag

NOISE = draw_noise([0, 1, 2], (4, 8, 8))
SEARCHES = [FullInversion, Zigzag]


def close(found, expected, atol=1e-4):
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


@pytest.mark.parametrize("kind", SEARCHES)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("steps, refinements", [(1, 0), (2, 0), (10, 0), (50, 0), (10, 2)])
def test_ideal_denoiser_leaves_the_noise_unchanged(ideal, prompt, kind, prediction, guidance, steps, refinements):
    search = kind(steps, denoising_guidance=guidance, inversion_guidance=guidance, refinements=refinements)
    close(search.search(NOISE, prompt, ideal(prediction, gap=0.1)), NOISE)


@pytest.mark.parametrize("kind", SEARCHES)
@given(slope=st.floats(-0.5, 0.5), guidance=st.sampled_from([0.0, 1.0, 2.5]), steps=st.integers(2, 20))
@settings(deadline=None, max_examples=8)
def test_refinements_invert_a_linear_denoiser(ideal, prompt, kind, slope, guidance, steps):
    pipeline = ideal(gap=0.1, slope=slope)
    search = kind(steps, denoising_guidance=guidance, inversion_guidance=guidance, refinements=3)
    close(search.search(NOISE, prompt, pipeline), NOISE)


def test_without_refinements_the_errors_add_up_and_one_solves_a_linear_denoiser(ideal, prompt):
    pipeline = ideal(slope=0.5)
    errors = [
        (FullInversion(10, 1.0, 1.0, refinements=refinements).search(NOISE, prompt, pipeline) - NOISE).abs().max()
        for refinements in (0, 1, 2)
    ]
    assert errors[0] > 0.1
    assert max(errors[1:]) < 1e-4


def test_refinements_close_in_on_the_solution_faster_than_plain_iterations():
    """On a trained denoiser, at its slopes: at the middle step plain iterations do not even converge."""
    source = "package:shapes/weights/pipeline"
    pipeline = SDXLPipeline.load(source, device="cpu", height=32, width=32, steps=10, guidance=1.0)
    noise, prompt = draw_noise(range(8), pipeline.latent_shape), pipeline.encode(["a red circle"] * 8)
    path = SamplerPath.of(pipeline, prompt, 10)
    for step in (0, 5):
        below = path.down(noise, step, 1.0)
        start, end = path.levels[step : step + 2]
        plain, ours, solution = [], [], below
        for refinements in range(5):
            solution = pipeline.schedule.move(below, pipeline.predict(solution, start, prompt, 1.0), end, start)
            plain.append((solution - noise).norm().item())
            ours.append((path.up(below, step, 1.0, refinements) - noise).norm().item())
        assert ours[0] == pytest.approx(plain[0])
        assert all(after < 0.8 * before for before, after in itertools.pairwise(ours)), ours
        assert ours[4] < 0.1 * plain[4]


def test_samples_are_refined_apart(sdxl, prompt):
    """A sample's inversion does not depend on what else is in its batch."""
    path = SamplerPath.of(sdxl, prompt, 4)
    together = path.up(NOISE, 1, 3.0, refinements=3)
    others = torch.cat([NOISE[:1], NOISE[1:] * 0.1])
    close(path.up(others, 1, 3.0, refinements=3)[:1], together[:1])


@given(slope=st.floats(-3, 0.9), start=st.floats(-5, 5).filter(lambda x: abs(x) > 0.1))
@settings(deadline=None)
def test_secant_finds_the_fixed_point_of_a_line(slope, start):
    first = torch.full((1, 1, 1, 1), start, dtype=torch.float64)
    second = slope * first + 1
    residuals = [slope * x + 1 - x for x in (first, second)]
    taken_back = secant(residuals[1], residuals[0]) * (slope * second - slope * first)
    close(slope * second + 1 - taken_back, torch.full_like(first, 1 / (1 - slope)), atol=1e-6)


def test_secant_of_equal_residuals_takes_nothing_back():
    assert secant(NOISE, NOISE).tolist() == torch.zeros(3, 1, 1, 1).tolist()


def test_refinements_invert_the_real_denoiser(sdxl, prompt):
    errors = [
        (FullInversion(4, 1.0, 1.0, refinements=refinements).search(NOISE, prompt, sdxl) - NOISE).abs().max()
        for refinements in (0, 8)
    ]
    assert errors[1] < 1e-3 < errors[0]


@pytest.mark.parametrize("steps", [1, 4])
def test_down_is_the_sampler_of_diffusers(sdxl, prompt, steps):
    path = SamplerPath.of(sdxl, prompt, steps)
    scheduler = DDIMScheduler.from_config(sdxl.pipe.scheduler.config, clip_sample=False, set_alpha_to_one=False)
    scheduler.set_timesteps(steps)
    latents = expected = NOISE
    for step, timestep in enumerate(scheduler.timesteps):
        noise = sdxl.predict(expected, timestep, prompt, 3.0)
        expected = scheduler.step(noise, timestep, expected).prev_sample
        latents = path.down(latents, step, 3.0)
        close(latents, expected)


def test_the_inverted_image_is_the_guided_one(sdxl, prompt):
    """Sampled with w2, the golden noise leads to the latents that w1 drew."""
    search = FullInversion(4, denoising_guidance=3.0, inversion_guidance=1.0, refinements=8)
    golden, path = search.search(NOISE, prompt, sdxl), SamplerPath.of(sdxl, prompt, 4)
    guided, plain, again = NOISE, NOISE, golden
    for step in range(4):
        guided, plain, again = path.down(guided, step, 3.0), path.down(plain, step, 1.0), path.down(again, step, 1.0)
    close(again, guided, atol=1e-3)
    assert (plain - guided).abs().max() > 1e-2


def test_inverted_in_fewer_steps_the_image_is_the_guided_one_too(sdxl, prompt):
    """Sampled in `back_steps` steps, the golden noise leads to the latents that w1 drew in `steps`."""
    golden = FullInversion(6, 3.0, 1.0, refinements=8, back_steps=3).search(NOISE, prompt, sdxl)
    long, short = SamplerPath.of(sdxl, prompt, 6), SamplerPath.of(sdxl, prompt, 3)
    guided, again = NOISE, golden
    for step in range(6):
        guided = long.down(guided, step, 3.0)
    for step in range(3):
        again = short.down(again, step, 1.0)
    close(again, guided, atol=1e-3)


def test_as_many_steps_back_are_the_default(sdxl, prompt):
    found = [FullInversion(4, back_steps=back).search(NOISE, prompt, sdxl) for back in (None, 4)]
    assert torch.equal(*found)


def test_one_plain_turn_of_zigzag_is_redenoising_twice(sdxl, prompt):
    found = Zigzag(10, ratio=0.1, denoising_guidance=5.5, inversion_guidance=1.0, refinements=0)
    close(found.search(NOISE, prompt, sdxl), Redenoise(10, 5.5, 1.0, rounds=2).search(NOISE, prompt, sdxl))


@pytest.mark.parametrize(
    "search, rows",
    [
        (FullInversion(4, 2.5, 1.0, refinements=2), [6] * 4 + [3] * 12),
        (FullInversion(4, 2.5, 1.0, refinements=1, back_steps=2), [6] * 4 + [3] * 4),
        (Zigzag(4, ratio=0.5, refinements=1), [6, 3, 3, 6] * 2 + [3] * 4),
        (Zigzag(4, ratio=0.01, refinements=0), [6, 3, 6, 3]),
    ],
)
def test_cost_in_denoiser_rows(sdxl, prompt, search, rows):
    calls = []
    hook = sdxl.denoiser.register_forward_hook(lambda module, args, output: calls.append(len(args[0])))
    search.search(NOISE, prompt, sdxl)
    hook.remove()
    assert calls == rows


@pytest.mark.parametrize(
    "kind, options, named",
    [
        (FullInversion, {"steps": 0}, "search.steps=0"),
        (FullInversion, {"steps": 10, "refinements": -1}, "search.refinements=-1"),
        (FullInversion, {"steps": 10, "back_steps": 0}, "search.back_steps=0"),
        (Zigzag, {"steps": 0}, "search.steps=0"),
        (Zigzag, {"steps": 10, "ratio": 0.0}, "search.ratio=0.0"),
        (Zigzag, {"steps": 10, "ratio": 1.1}, "search.ratio=1.1"),
    ],
)
def test_senseless_settings(kind, options, named):
    with pytest.raises(UserError) as error:
        kind(**options)
    assert named in str(error.value)


@pytest.mark.parametrize(
    ("steps", "ratio", "turns"), [(10, 0.26, 3), (10, 0.24, 2), (10, 0.35, 4), (4, 0.1, 1), (4, 1.0, 4), (3, 0.5, 2)]
)
def test_zigzag_turns_at_the_nearest_whole_number_of_steps(ideal, prompt, monkeypatch, steps, ratio, turns):
    """Each turn costs a step down, one up, one down again, and one up on the way back."""
    pipeline, calls = ideal(), []
    denoise = pipeline.denoise
    monkeypatch.setattr(pipeline, "denoise", lambda *call: calls.append(call) or denoise(*call))
    Zigzag(steps, ratio, denoising_guidance=1.0, inversion_guidance=1.0, refinements=0).search(NOISE, prompt, pipeline)
    assert len(calls) == 4 * turns
