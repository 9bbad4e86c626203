"""PromptEmbedding, which belongs to no family."""

import pytest
import torch

from golden_noise.pipelines.prompt_embedding import PromptEmbedding
from golden_noise.pipelines.sdxl import SDXLPipeline


def embedding(count=3, **parts):
    shapes = {"embeds": (5, 6), "pooled": (7,), "mask": (5,), "embeds_2": (8, 9), "mask_2": (8,)}
    tensors = {name: torch.randn(count, *shape) for name, shape in shapes.items()}
    return PromptEmbedding(**tensors | {name: tensors[name].gt(0).long() for name in ("mask", "mask_2")}, **parts)


@pytest.mark.parametrize("index", [slice(1, 3), [2, 0], torch.tensor([1, 2, 0]), torch.tensor([True, False, True])])
def test_it_is_indexed_part_by_part(index):
    whole = embedding(negative=embedding(), texts=("a", "b", "c"))
    chosen = whole[index]
    for some, every in ((chosen, whole), (chosen.negative, whole.negative)):
        assert some.tensors.keys() == every.tensors.keys() and len(some.tensors) == 5
        for name, part in every.tensors.items():
            assert torch.equal(some.tensors[name], part[index]), name
    assert len(chosen) == len(chosen.texts) == len(whole.embeds[index])
    assert list(chosen.texts) == [whole.texts[i] for i in torch.arange(3)[index]]


def test_parts_that_are_not_there_stay_away():
    chosen = PromptEmbedding(torch.zeros(3, 2, 4))[:2]
    assert len(chosen) == 2
    assert chosen.tensors.keys() == {"embeds"}
    assert chosen.negative is None and chosen.texts == ()


def test_the_negative_half_comes_first():
    whole = embedding(negative=embedding())
    both = whole.after_negative()
    assert len(both) == 6
    for name, part in both.tensors.items():
        assert torch.equal(part, torch.cat([whole.negative.tensors[name], whole.tensors[name]]))


def test_masks_keep_their_integers():
    half = embedding(texts=("a", "b", "c")).to(torch.device("cpu"), torch.bfloat16)
    dtypes = {name: part.dtype for name, part in half.tensors.items()}
    assert dtypes.pop("mask") == dtypes.pop("mask_2") == torch.int64
    assert set(dtypes.values()) == {torch.bfloat16}
    assert half.texts == ("a", "b", "c")


def test_device_and_dtype_are_those_of_the_moment(tiny_sdxl):
    """They are asked once, and again where the weights have changed."""
    pipeline = SDXLPipeline.load(str(tiny_sdxl), "cpu", "float32", height=24, width=16, steps=2, guidance=1.0)
    assert (pipeline.device.type, pipeline.dtype) == ("cpu", torch.float32)
    pipeline.pipe.to(torch.float64)
    assert pipeline.dtype == pipeline.denoiser.dtype == torch.float64
    pipeline.pipe.to("meta")
    assert pipeline.device.type == "meta"
