"""Denoiser calls are counted by row, forward and backward."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from golden_noise.noise import draw_noise
from golden_noise.pipelines.calls import counting
from golden_noise.pipelines.sdxl import SDXLPipeline

NOISE = draw_noise([0, 1, 2], (4, 8, 8))


@pytest.fixture(scope="module")
def sdxl(tiny_sdxl):
    return SDXLPipeline.load(str(tiny_sdxl), device="cpu", height=32, width=32, steps=4, guidance=1.0)


@pytest.fixture(scope="module")
def prompt(sdxl):
    return sdxl.encode(["a red circle", "two crosses", "a green triangle"])


@pytest.mark.parametrize(
    ("guidance", "steps", "expected"), [(1.0, None, 4), (1.0, 3, 3), (2.5, None, 8), (0.0, None, 4)]
)
def test_sampling(sdxl, prompt, guidance, steps, expected):
    with counting(sdxl) as calls:
        sdxl.sample(prompt, NOISE, steps, guidance)
    assert (calls.total, calls.forward, calls.backward) == (3 * expected, 3 * expected, 0)


@pytest.mark.parametrize(
    ("guidance", "jacobian_steps", "checkpointing", "forward", "backward"),
    [
        (1.0, None, False, 4, 4),
        (1.0, None, True, 8, 4),  # each step is computed again
        (1.0, 1, False, 4, 1),
        (1.0, 1, True, 5, 1),
        (1.0, 0, False, 4, 0),
        (2.0, None, False, 8, 8),
    ],
)
def test_gradients_through_the_sampler(sdxl, prompt, guidance, jacobian_steps, checkpointing, forward, backward):
    noise = NOISE.clone().requires_grad_()
    with counting(sdxl) as calls:
        sdxl.generate(noise, prompt, 4, guidance, jacobian_steps, checkpointing).sum().backward()
    assert (calls.forward, calls.backward) == (3 * forward, 3 * backward)
    assert calls.total == 3 * (forward + 2 * backward)


def test_without_a_backward_pass_there_is_none_to_count(sdxl, prompt):
    with counting(sdxl) as calls:
        sdxl.generate(NOISE.clone().requires_grad_(), prompt)
    assert calls.total == 12


def test_a_watcher_sees_the_counts_and_can_end_the_computation(sdxl, prompt):
    seen = []

    def watch(calls):
        seen.append(calls.total)
        if len(seen) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError), counting(sdxl, watch=watch):
        sdxl.sample(prompt, NOISE)
    assert seen == [0, 3, 6]
    assert sdxl.sample(prompt, NOISE).isfinite().all() and len(seen) == 3


def test_nothing_is_counted_before_and_after(sdxl, prompt):
    sdxl.sample(prompt, NOISE)
    with counting(sdxl) as outer:
        with counting(sdxl) as inner:
            sdxl.sample(prompt, NOISE, 1)
        sdxl.sample(prompt, NOISE, 2)
    sdxl.sample(prompt, NOISE)
    assert (inner.total, outer.total) == (3, 9)


def test_an_error_ends_the_count(sdxl, prompt):
    with pytest.raises(ZeroDivisionError), counting(sdxl) as calls:
        raise ZeroDivisionError
    sdxl.sample(prompt, NOISE, 1)
    assert calls.total == 0


def test_a_shared_denoiser_counts_once_and_what_has_none_not_at_all(sdxl, prompt):
    with counting(sdxl, SimpleNamespace(denoiser=sdxl.denoiser), None, nn.Linear(1, 1)) as calls:
        sdxl.sample(prompt, NOISE, 1)
    assert calls.total == 3


def test_a_compiled_denoiser_is_counted_too():
    denoiser = nn.Linear(4, 4)
    denoiser.compile(backend="eager")
    denoiser(torch.zeros(2, 4))
    for _ in range(2):
        with counting(SimpleNamespace(denoiser=denoiser)) as calls:
            denoiser(torch.zeros(5, 4)).sum().backward()
        assert (calls.forward, calls.backward) == (5, 5)
        denoiser(torch.zeros(2, 4))
