"""Pipelines as the tests of this folder load them."""

import pytest
import torch

from golden_noise.errors import UserError
from golden_noise.pipelines.sdxl import SDXLPipeline

SETTINGS = {"height": 32, "width": 32, "steps": 2, "guidance": 1.0}


def load(folder, kind=SDXLPipeline, **options):
    return kind.load(str(folder), device="cpu", **SETTINGS | options)


def refusal(folder, kind=SDXLPipeline, **options) -> str:
    with pytest.raises(UserError) as error:
        load(folder, kind, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.values(), other.values(), strict=True))
