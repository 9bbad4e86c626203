"""Images that are no numbers, noise that is rounded once, and VAEs that help."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from golden_noise.errors import UserError
from golden_noise.images import to_pil
from golden_noise.noise import draw_noise
from golden_noise.pipelines.hunyuan_dit import HunyuanDiTPipeline
from golden_noise.pipelines.overflow import are_finite, check_images
from golden_noise.pipelines.sdxl import SDXLPipeline
from golden_noise.pipelines.stable_diffusion import SDPipeline
from golden_noise.prompts import Prompt

PROMPTS = [Prompt(0, "a red circle", 3), Prompt(1, "two crosses", 4)]
SETTINGS = {"height": 32, "width": 32, "steps": 2, "guidance": 1.0}


def load(folder, kind=SDXLPipeline, **options):
    return kind.load(str(folder), device="cpu", **SETTINGS | options)


def draw(pipeline, noise=None):
    latents = pipeline.draw_noise([prompt.seed for prompt in PROMPTS]) if noise is None else noise
    return pipeline.sample(pipeline.encode([prompt.text for prompt in PROMPTS]), latents)


def change(folder, file, name, change_tensor):
    tensors = load_file(folder / file)
    tensors[name] = change_tensor(tensors[name])
    save_file(tensors, folder / file, {"format": "pt"})


@pytest.fixture(params=["nan", "inf", "-inf"])
def broken(request, tmp_path):
    """A copy of a pipeline whose VAE gives pixels that are no numbers; infinite ones would be clamped to 0 or 1."""

    def copy(source):
        folder = shutil.copytree(source, tmp_path / "broken")
        change(
            folder,
            "vae/diffusion_pytorch_model.safetensors",
            "decoder.conv_out.bias",
            lambda bias: torch.full_like(bias, float(request.param)),
        )
        return folder

    return copy


@pytest.mark.parametrize(
    ("source", "kind", "size"),
    [("tiny_sdxl", SDXLPipeline, 32), ("tiny_sd", SDPipeline, 32), ("tiny_hunyuan", HunyuanDiTPipeline, 64)],
)
def test_pixels_that_are_no_numbers_stay_so_and_are_refused(source, kind, size, broken, request):
    images = draw(load(broken(request.getfixturevalue(source)), kind, height=size, width=size))
    assert are_finite(images) == [False, False]
    with pytest.raises(UserError, match=r"'a red circle' \(seed 3\) from golden noise is not finite") as error:
        check_images(images, PROMPTS, "golden", torch.float16)
    assert all(word in str(error.value) for word in ("pipeline.model.dtype", "upcast", "another VAE"))
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="not finite"):  # whoever forgets to check
        to_pil(images)


def test_each_image_is_judged_by_itself_and_black_is_an_image(tiny_sdxl):
    pipeline = load(tiny_sdxl)
    noise = pipeline.draw_noise([3, 4])
    whole = draw(pipeline, noise)
    noise[1, 0, 0, 0] = torch.nan
    images = draw(pipeline, noise)
    assert are_finite(images) == [True, False]
    torch.testing.assert_close(images[0], whole[0], atol=1e-5, rtol=0)
    with pytest.raises(UserError, match=r"'two crosses' \(seed 4\)"):
        check_images(images, PROMPTS, "golden", torch.float16)
    check_images(torch.zeros(2, 3, 8, 8), PROMPTS, "standard", torch.float32)


@pytest.mark.parametrize(
    ("dtype", "helps"),
    [
        (torch.float16, "dtype=bfloat16 or float32, "),
        (torch.bfloat16, "dtype=float32, "),
        (torch.float32, "check the weights"),
    ],
)
def test_only_what_can_help_is_advised(dtype, helps):
    with pytest.raises(UserError, match=helps) as error:
        check_images(torch.full((2, 3, 8, 8), torch.nan), PROMPTS, "golden", dtype)
    assert ("pipeline.model.dtype" in str(error.value)) == (dtype != torch.float32)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_noise_is_rounded_once_to_what_images_are_drawn_from(tiny_sdxl, dtype):
    pipeline = load(tiny_sdxl, dtype=dtype)
    noise, drawn = pipeline.draw_noise([5, 6]), draw_noise([5, 6], (4, 8, 8))
    assert noise.dtype == torch.float32 and noise.device.type == "cpu"
    assert torch.equal(noise, noise.to(pipeline.dtype).float())  # a second rounding changes nothing
    assert torch.equal(noise.to(pipeline.dtype), drawn.to(pipeline.dtype))
    assert torch.equal(noise, drawn) == (dtype == "float32")
    if dtype == "float16":
        assert torch.equal(noise.half().float(), noise)  # as pairs are stored


def test_a_vae_that_overflows_in_half_precision_decodes_in_float32(tiny_sdxl, tiny_sd, tmp_path):
    """Its last layer has weights up to 3e4, and gives more than 65504, where float16 ends; for all families alike."""
    for name, source, kind in (("sdxl", tiny_sdxl, SDXLPipeline), ("sd", tiny_sd, SDPipeline)):
        folder = shutil.copytree(source, tmp_path / name)
        file = "vae/diffusion_pytorch_model.safetensors"
        change(folder, file, "decoder.conv_out.weight", lambda weight: weight * (3e4 / weight.abs().max()))
        by_itself = name == "sdxl"  # diffusers does so if the VAE's config says so, for this family alone
        assert are_finite(draw(load(folder, kind, dtype="float16"))) == [by_itself, by_itself]
        upcast = load(folder, kind, dtype="float16", memory={"vae_upcast": True, "vae_slicing": True})
        assert upcast.dtype == torch.float16 and upcast.pipe.vae.dtype == torch.float32
        assert are_finite(draw(upcast)) == [True, True]


def test_decoding_in_float32_changes_no_float32(tiny_sdxl):
    assert torch.equal(draw(load(tiny_sdxl, memory={"vae_upcast": True})), draw(load(tiny_sdxl)))
