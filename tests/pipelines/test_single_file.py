"""Pipelines and VAEs in one file, in the layout of the original code."""

import io
import logging
import shutil

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from lightning.pytorch.utilities.seed import isolate_rng
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModelWithProjection

from golden_noise import identity
from golden_noise.npnet.pretrained import denoiser_conv_in
from golden_noise.pipelines.sdxl import SDXLPipeline
from golden_noise.pipelines.stable_diffusion import SDPipeline
from golden_noise.shapes.models import _text_config, build_pipeline, build_tokenizer, build_vae
from tests.original_layout import original, vae
from tests.tiny_pipelines import tiny_vae

from .loaded import load, refusal, same

PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")


@pytest.fixture(scope="module")
def two_widths(tmp_path_factory):
    """Folder of a tiny SDXL whose text encoders have two widths, as SDXL's: diffusers tells them apart by these."""
    folder = tmp_path_factory.mktemp("two_widths")
    with isolate_rng():
        torch.manual_seed(0)
        parts = build_pipeline().components
        config = dict(parts["unet"].config) | {"cross_attention_dim": 64 + 96}
        unet = UNet2DConditionModel.from_config(config | {"projection_class_embeddings_input_dim": 96 + 6 * 8})
        second = CLIPTextModelWithProjection(_text_config(build_tokenizer(), 96, layers=3))
        changed = {"unet": unet, "text_encoder_2": second, "vae": tiny_vae(channels=4, levels=3)}
        StableDiffusionXLPipeline(**parts | changed, add_watermarker=False).save_pretrained(folder)
    return folder


CASES = {
    "sdxl": ("two_widths", SDXLPipeline, StableDiffusionXLPipeline),
    "sd": ("tiny_sd", SDPipeline, StableDiffusionPipeline),
}


@pytest.fixture(params=CASES)
def case(request):
    name, ours, theirs = CASES[request.param]
    return request.getfixturevalue(name), ours, theirs


@pytest.fixture
def written(case, tmp_path):
    """Our class, the original folder, the file of its weights, and a folder that only describes it."""
    folder, ours, theirs = case
    file = tmp_path / "best é mix.safetensors"
    save_file(original(theirs.from_pretrained(folder)), file, {"format": "pt"})
    described = tmp_path / "described"
    shutil.copytree(folder, described, ignore=shutil.ignore_patterns("*.safetensors"))
    return ours, folder, file, described


@pytest.fixture
def said():
    """What diffusers has logged."""
    text = io.StringIO()
    handler, logger = logging.StreamHandler(text), logging.getLogger("diffusers")
    logger.addHandler(handler)
    yield text.getvalue
    logger.removeHandler(handler)


def test_a_file_is_the_pipeline_that_it_was_made_of(written):
    kind, folder, file, described = written
    one, other = load(file, kind, config=str(described)), load(folder, kind)
    for part in (part for part in PARTS if hasattr(other.pipe, part)):
        found, expected = (getattr(each.pipe, part).state_dict() for each in (one, other))
        assert found.keys() == expected.keys() and same(found, expected), part
    prompt, noise = one.encode(["a red circle", ""]), one.draw_noise([0, 1])
    assert torch.equal(one.sample(prompt, noise), other.sample(other.encode(["a red circle", ""]), noise))
    convolution = denoiser_conv_in(str(file))
    assert same(convolution, denoiser_conv_in(str(folder)))
    with pytest.raises(ValueError, match="has no UNet"):
        denoiser_conv_in(str(folder / "vae/diffusion_pytorch_model.safetensors"))


def test_its_dtype_is_the_pipelines(written, said):
    kind, _, file, described = written
    pipe = load(file, kind, config=str(described), dtype="bfloat16").pipe
    assert {getattr(pipe, part).dtype for part in PARTS if hasattr(pipe, part)} == {torch.bfloat16}
    assert "float32" not in said()


def test_without_its_description_a_file_says_what_to_do(written):
    kind, _, file, described = written
    message = refusal(file, kind)
    assert "best é mix.safetensors needs the configuration and tokenizers of stable-diffusion-v1-5/" in message
    assert "HF_HUB_OFFLINE is set" in message and "give pipeline.model.config" in message
    assert "pipeline.model.config" in refusal(file, kind, config="nobody/none")
    assert "pipeline.model.config" in refusal(file, kind, config=str(described / "none"))
    assert "no model_index.json" in refusal(file, kind, config=str(described / "unet"))
    assert "pipeline.model.config" in refusal(described, kind, config=str(described))  # of no file


def test_a_file_that_lacks_weights(written):
    kind, folder, file, described = written
    tensors = load_file(file)
    for name in ("model.diffusion_model.out.2.bias", "first_stage_model.decoder.conv_out.bias"):
        save_file({key: x for key, x in tensors.items() if key != name}, file)
        assert "does not hold all of a StableDiffusion" in refusal(file, kind, config=str(described))
    position = next(key for key in tensors if key.endswith("position_embedding.weight"))
    norm = position.replace("embeddings.position_embedding.weight", "final_layer_norm.bias")
    save_file({key: x for key, x in tensors.items() if key != norm}, file)
    message = refusal(file, kind, config=str(described))
    assert "lacks 1 of its weights, such as text_encoder." in message or "does not hold all" in message
    save_file({key: x for key, x in tensors.items() if not key.startswith("cond")}, file)
    for config in (described, folder):  # whose own text encoders would be other ones
        assert "Failed to load CLIPTextModel" in refusal(file, kind, config=str(config))
    save_file({"other.weight": torch.zeros(3)}, file)
    assert "StableDiffusion" in refusal(file, kind, config=str(described))


def test_files_that_cannot_be_used(tiny_sd, two_widths, tmp_path):
    torch.save({}, tmp_path / "old.ckpt")
    for source in (tmp_path / "old.ckpt", "old.ckpt", "ORG/NAME/old.pt"):
        assert "must be a .safetensors file" in refusal(source)
    assert "is a URL" in refusal("https://hub.example/model.safetensors")
    assert "no file" in refusal(tmp_path / "none.safetensors")
    assert "ORG/NAME/x.safetensors" in refusal("ORG/NAME/x.safetensors")
    file = tmp_path / "x.safetensors"
    for content in (b"", b"version https://git-lfs.github.com/spec/v1\noid", b"\x00" * 100):
        file.write_bytes(content)
        assert "x.safetensors cannot be read" in refusal(file, config=str(two_widths))
    save_file({"model.diffusion_model.out.2.bias": torch.zeros(3, dtype=torch.int8)}, file)
    assert "holds I8" in refusal(file, config=str(two_widths))
    save_file(original(StableDiffusionPipeline.from_pretrained(tiny_sd)), file)
    assert "needs a StableDiffusionXLPipeline" in refusal(file, config=str(tiny_sd))
    assert "cannot be read as a StableDiffusionXLPipeline" in refusal(file, config=str(two_widths))


def test_a_mark_of_velocity_prediction_is_followed(tiny_sd, tmp_path):
    tensors = original(StableDiffusionPipeline.from_pretrained(tiny_sd))
    save_file(tensors | {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}, tmp_path / "v.safetensors")
    config = load(tmp_path / "v.safetensors", SDPipeline, config=str(tiny_sd)).pipe.scheduler.config
    assert (config.prediction_type, config.rescale_betas_zero_snr) == ("v_prediction", True)


def test_its_content_is_part_of_the_identity(tmp_path):
    file, found = tmp_path / "m.safetensors", []
    for content in (b"a", b"b"):
        file.write_bytes(content)
        settings = {"source": str(file), "config": None, "variant": "fp16"}
        found.append(identity.images(identity.model(settings, "float32")))
    assert [*found[0]["files"]] == [str(file)] and "config" not in found[0]["pipeline"]
    assert found[0]["files"] != found[1]["files"]


@pytest.mark.parametrize("form", ["original", "whole", "diffusers"])
def test_a_vae_in_one_file(two_widths, tmp_path, form, said):
    pipe = StableDiffusionXLPipeline.from_pretrained(two_widths)
    with torch.no_grad():
        pipe.vae.decoder.conv_out.bias += 0.5
    forms = {"original": lambda: vae(pipe.vae), "whole": lambda: original(pipe), "diffusers": pipe.vae.state_dict}
    tensors = {name: x.clone().contiguous() for name, x in forms[form]().items()}
    save_file(tensors, tmp_path / "vae.safetensors")
    changed = load(two_widths, vae={"source": str(tmp_path / "vae.safetensors")})
    assert "float32" not in said()
    assert same(changed.pipe.vae.state_dict(), pipe.vae.state_dict())
    assert changed.pipe.vae.config.scaling_factor == pipe.vae.config.scaling_factor
    prompt, noise = changed.encode(["a red circle"]), changed.draw_noise([0])
    assert not torch.equal(changed.sample(prompt, noise), load(two_widths).sample(prompt, noise))


def test_vae_files_that_cannot_be_used(two_widths, tmp_path):
    def refused(source):
        return refusal(two_widths, vae={"source": str(source)})

    assert "pipeline.model.vae.source" in refused(tmp_path / "none.safetensors")
    assert "must be a .safetensors file" in refused(tmp_path / "vae.pt")
    build_vae().save_pretrained(tmp_path / "other")  # of other widths
    assert "is no VAE like the pipeline's own" in refused(tmp_path / "other/diffusion_pytorch_model.safetensors")
    save_file({"other.weight": torch.zeros(3)}, tmp_path / "x.safetensors")
    assert refused(tmp_path / "x.safetensors").startswith("pipeline.model.vae: ")
    own = load_file(two_widths / "vae/diffusion_pytorch_model.safetensors")
    del own["decoder.conv_out.bias"]
    save_file(own, tmp_path / "x.safetensors")
    assert refused(tmp_path / "x.safetensors").startswith("pipeline.model.vae: ")
