"""The custom pipeline of diffusers: golden_latents in one argument, to the bit."""

import re

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionXLPipeline
from diffusers.utils import dynamic_modules_utils
from PIL import Image

from golden_noise import golden_latents
from golden_noise.errors import UserError
from golden_noise.noise import sampler_generators
from golden_noise.npnet import NPNet
from tests.docs.pages import ROOT

PROMPTS = ["a red circle", "two crosses, 🦊"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    torch.manual_seed(0)
    npnet = NPNet((4, 8, 8), (16, 128), fit="tile")
    with torch.no_grad():
        for parameter in npnet.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    folder = tmp_path_factory.mktemp("train")
    npnet.eval().save_pretrained(folder / "npnet/best")
    return str(folder)


@pytest.fixture(scope="module")
def from_pretrained(tiny_sdxl, tmp_path_factory):
    """Loads the tiny SDXL by the file in this repository, which diffusers copies to a folder of modules."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamic_modules_utils, "HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))

        def loaded(custom_pipeline=f"{ROOT}/golden_noise/generation/custom_pipeline", source=tiny_sdxl, **arguments):
            arguments = {"custom_pipeline": custom_pipeline, "trust_remote_code": True, **arguments}
            pipe = DiffusionPipeline.from_pretrained(source, add_watermarker=False, **arguments)
            pipe.set_progress_bar_config(disable=True)
            return pipe

        yield loaded


@pytest.fixture(scope="module")
def pipe(from_pretrained, source):
    return from_pretrained(npnet=source)


@pytest.fixture(scope="module")
def expected(tiny_sdxl, source):
    """The same call with golden_latents."""
    plain = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl, add_watermarker=False)
    plain.set_progress_bar_config(disable=True)

    def drawn(prompts, seeds, **size):
        options = {"num_inference_steps": 2, "output_type": "pt", "generator": sampler_generators(seeds), **size}
        return plain(prompts, latents=golden_latents(source, plain, prompts, seeds, **size), **options).images

    return drawn


def drawn(pipe, *arguments, **options):
    return pipe(*arguments, num_inference_steps=2, output_type="pt", **options).images


def test_it_equals_golden_latents_to_the_bit(pipe, expected):
    assert torch.equal(drawn(pipe, PROMPTS, seeds=[3, 4]), expected(PROMPTS, [3, 4]))
    wide = {"height": 32, "width": 64}
    assert torch.equal(drawn(pipe, PROMPTS[0], seeds=5, **wide), expected(PROMPTS[:1], [5], **wide))
    assert torch.equal(drawn(pipe, PROMPTS[1], seeds=[3, 4]), expected(PROMPTS[1:] * 2, [3, 4]))


def test_without_seeds_every_call_is_another(pipe, expected):
    torch.manual_seed(0)
    first, second = drawn(pipe, PROMPTS), drawn(pipe, PROMPTS)
    assert first.shape == (2, 3, 32, 32) and not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(drawn(pipe, PROMPTS), first)


def test_a_network_that_shares_the_denoiser_leaves_the_pipeline_as_it_is(from_pretrained):
    miniature = "golden_noise/shapes/weights"
    pipe = from_pretrained(
        source=ROOT / miniature / "pipeline", npnet="package:shapes/weights/npnet", dtype=torch.float32
    )
    before = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    image = drawn(pipe, "two crosses", seeds=3, guidance_scale=1)
    assert pipe.golden_network is pipe.golden_network and image.shape == (1, 3, 32, 32)
    assert all(torch.equal(value, before[name]) for name, value in pipe.unet.state_dict().items())
    assert all(parameter.requires_grad for parameter in pipe.unet.parameters())


def test_it_can_be_saved_with_its_network_named(pipe, from_pretrained, source, tmp_path):
    pipe.save_pretrained(tmp_path)
    again = from_pretrained(source=tmp_path)
    assert again.config.npnet == source
    assert torch.equal(drawn(again, PROMPTS, seeds=[1, 2]), drawn(pipe, PROMPTS, seeds=[1, 2]))


def test_the_snippet_of_the_page_draws_and_saves_an_image(from_pretrained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (snippet,) = re.findall(r"```py\n(.*?)```", (ROOT / "docs/diffusers.md").read_text("utf-8"), re.DOTALL)
    exec(compile(snippet, "docs/diffusers.md", "exec"), {})
    assert len(Image.open("golden.png").getcolors(10_000)) > 50


def test_what_cannot_be_drawn_is_refused_in_one_line(pipe, from_pretrained):
    mistakes = {
        "latents does not go with seeds": {"latents": torch.zeros(1, 4, 8, 8)},
        "num_images_per_prompt does not": {"num_images_per_prompt": 2},
        "2 prompts but 1 seeds": {"seeds": 3},
    }
    for reason, arguments in mistakes.items():
        with pytest.raises(UserError, match=reason) as error:
            drawn(pipe, PROMPTS, **arguments)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="no NPNet: give from_pretrained npnet=SOURCE"):
        drawn(from_pretrained(), "a red circle", seeds=1)
