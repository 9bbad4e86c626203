import torch

from golden_noise.noise import SAMPLER, SHIFT, derived_seed, draw_noise, sampler_generators

SHAPE = (4, 8, 8)


def test_noise_is_that_of_a_float32_cpu_generator_with_the_seed():
    noise = draw_noise([7], SHAPE)
    assert noise.dtype == torch.float32
    assert noise.device.type == "cpu"
    assert torch.equal(noise[0], torch.randn(SHAPE, generator=torch.Generator().manual_seed(7)))


def test_batch_and_order_do_not_change_a_seeds_noise():
    seeds = [3, 0, 12345678901, 3]
    batch = draw_noise(seeds, SHAPE)
    assert batch.shape == (4, *SHAPE)
    for seed, noise in zip(seeds, batch, strict=True):
        assert torch.equal(noise, draw_noise([seed], SHAPE)[0])
    assert not torch.equal(batch[0], batch[1])


def test_global_random_state_is_neither_used_nor_changed():
    torch.manual_seed(0)
    first, state = draw_noise([5], SHAPE), torch.get_rng_state()
    assert torch.equal(state, torch.Generator().manual_seed(0).get_state())
    torch.manual_seed(1)
    assert torch.equal(draw_noise([5], SHAPE), first)


def test_noise_is_standard_normal():
    noise = draw_noise(range(200), SHAPE)
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02


def test_sampler_noise_is_unrelated_to_starting_noise():
    seeds = range(50)
    drawn = torch.stack([torch.randn(SHAPE, generator=generator) for generator in sampler_generators(seeds)])
    correlation = torch.corrcoef(torch.stack([drawn.flatten(), draw_noise(seeds, SHAPE).flatten()]))[0, 1]
    assert abs(correlation) < 0.04  # 12,800 values: four standard deviations


def test_sampler_generators_repeat_for_a_seed():
    first, second, other = (torch.randn(3, generator=g) for g in sampler_generators([9, 9, 10]))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_derived_seeds_repeat_and_differ_by_seed_and_use():
    seeds = [0, 1, 2**31, 2**32 - 1]
    derived = [derived_seed(seed, use) for seed in seeds for use in (SAMPLER, SHIFT)]
    assert derived == [derived_seed(seed, use) for seed in seeds for use in (SAMPLER, SHIFT)]
    assert len({*derived, *seeds}) == 12
    assert derived_seed(-1, SAMPLER) == derived_seed(2**32 - 1, SAMPLER)  # as torch's generator takes them
