"""Re-denoise sampling: its mathematics on a hand-written denoiser, the rest on the tiny pipeline."""

import pytest
import torch

from golden_noise.errors import UserError
from golden_noise.noise import draw_noise
from golden_noise.search.redenoise import Redenoise

NOISE = draw_noise([0, 1, 2], (4, 8, 8))
START, FOLLOWING, LOWER = 901, 801, 701  # DDIM's first timesteps of ten, leading with offset 1


def close(found, expected, atol=1e-5):
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


def move(latents, noise, alpha_from, alpha_to):
    """DDIM's equation, written out once more."""
    return (alpha_to / alpha_from).sqrt() * (latents - (1 - alpha_from).sqrt() * noise) + (1 - alpha_to).sqrt() * noise


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("guidance", [0.0, 1.0, 5.5])
@pytest.mark.parametrize("steps, rounds", [(2, 1), (10, 1), (50, 1), (10, 3)])
def test_ideal_denoiser_leaves_the_noise_unchanged(ideal, prompt, prediction, guidance, steps, rounds):
    search = Redenoise(steps, denoising_guidance=guidance, inversion_guidance=guidance, rounds=rounds)
    close(search.search(NOISE, prompt, ideal(prediction)), NOISE)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_guidance_gap_is_written_into_the_noise(ideal, prompt, prediction):
    pipeline = ideal(prediction, gap=0.1)
    golden = Redenoise(10, denoising_guidance=5.5, inversion_guidance=1.0).search(NOISE, prompt, pipeline)
    before, after = pipeline.schedule.alphas_cumprod[[START, FOLLOWING]]
    # Down with e + 5.5 g and back with e + g: the gap of 4.5 g stays, in the measure of the step.
    size = ((before / after) * (1 - after)).sqrt() - (1 - before).sqrt()
    assert abs(size) > 0.01
    close(golden - NOISE, (size * 4.5 * 0.1 * pipeline.direction).expand_as(NOISE))


def test_exact_level_is_the_round_trip_of_the_formula(sdxl, prompt):
    a, b = sdxl.schedule.alphas_cumprod[[START, FOLLOWING]]
    down = move(NOISE, sdxl.predict(NOISE, START, prompt, 5.5), a, b)
    expected = move(down, sdxl.predict(down, START, prompt, 1.0), b, a)
    golden = Redenoise(10).search(NOISE, prompt, sdxl)
    close(golden, expected)
    assert (golden - NOISE).abs().max() > 1e-3


def test_reference_level_is_the_published_wrong_move(sdxl, prompt):
    a, b, c = sdxl.schedule.alphas_cumprod[[START, FOLLOWING, LOWER]]
    down = move(NOISE, sdxl.predict(NOISE, START, prompt, 5.5), a, b)
    expected = move(down, sdxl.predict(down, START, prompt, 1.0), c, b)
    golden = Redenoise(10, level="reference").search(NOISE, prompt, sdxl)
    close(golden, expected)
    assert (golden - Redenoise(10).search(NOISE, prompt, sdxl)).abs().max() > 1e-2


def test_reference_level_does_not_undo_a_step(ideal, prompt):
    golden = Redenoise(10, 1.0, 1.0, level="reference").search(NOISE, prompt, ideal())
    assert (golden - NOISE).abs().max() > 0.05


def test_rounds_are_repeated_searches(sdxl, prompt):
    once = Redenoise(10)
    close(
        Redenoise(10, rounds=2).search(NOISE, prompt, sdxl), once.search(once.search(NOISE, prompt, sdxl), prompt, sdxl)
    )


def test_batch_is_its_singles(sdxl, prompt):
    search = Redenoise(10)
    singles = [search.search(NOISE[i : i + 1], prompt[i : i + 1], sdxl) for i in range(3)]
    close(search.search(NOISE, prompt, sdxl), torch.cat(singles))


def test_each_noise_follows_its_own_prompt(sdxl, prompt):
    search, same = Redenoise(10), NOISE[:1].expand(3, -1, -1, -1)
    golden = search.search(same, prompt, sdxl)
    close(search.search(same, prompt[[2, 0, 1]], sdxl), golden[[2, 0, 1]])
    assert (golden[0] - golden[1]).abs().max() > 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_shape_dtype_and_input_are_kept(sdxl, prompt, dtype):
    noise = NOISE.to(dtype)
    before = noise.clone()
    golden = Redenoise(10).search(noise, prompt, sdxl)
    assert (golden.shape, golden.dtype, golden.device) == (noise.shape, dtype, noise.device)
    assert torch.equal(noise, before)


@pytest.mark.parametrize("guidances, rows", [((5.5, 1.0), [6, 3]), ((5.5, 0.0), [6, 3]), ((1.0, 5.5), [3, 6])])
def test_cost_in_denoiser_rows(sdxl, prompt, guidances, rows):
    calls = []
    hook = sdxl.denoiser.register_forward_hook(lambda module, args, output: calls.append(len(args[0])))
    Redenoise(10, *guidances, rounds=2).search(NOISE, prompt, sdxl)
    hook.remove()
    assert calls == rows * 2


def test_searching_repeats_exactly(sdxl, prompt):
    assert torch.equal(Redenoise(10).search(NOISE, prompt, sdxl), Redenoise(10).search(NOISE, prompt, sdxl))


@pytest.mark.parametrize(
    "options, named",
    [
        ({"steps": 1}, "search.steps=1"),
        ({"steps": 2, "level": "reference"}, "search.steps=2"),
        ({"steps": 10, "rounds": 0}, "search.rounds=0"),
        ({"steps": 10, "level": "exactly"}, "search.level='exactly'"),
    ],
)
def test_senseless_settings(options, named):
    with pytest.raises(UserError) as error:
        Redenoise(**options)
    assert named in str(error.value)
