import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from golden_noise.shapes import models
from golden_noise.shapes.scenes import COLOURS, SHAPES, requests


@pytest.fixture(scope="module")
def tokenizer():
    return models.build_tokenizer()


def test_tokenizer_is_the_same_every_time(tokenizer):
    again = models.build_tokenizer()
    assert again.get_vocab() == tokenizer.get_vocab()
    texts = list(requests())[::97]
    assert again(texts).input_ids == tokenizer(texts).input_ids


def test_every_caption_is_one_token_per_word(tokenizer):
    texts = list(requests())
    tokens = tokenizer(texts).input_ids
    unknown = tokenizer.unk_token_id
    for text, ids in zip(texts, tokens, strict=True):
        assert len(ids) == len(text.split()) + 2 <= models.TOKENS, text
        assert ids[0] == tokenizer.bos_token_id
        assert ids[-1] == tokenizer.eos_token_id
        assert unknown not in ids[1:-1], text
    assert len({tuple(ids) for ids in tokens}) == len(texts)


def test_token_ids_fit_the_embedding(tokenizer):
    ids = tokenizer.get_vocab().values()
    assert sorted(ids) == list(range(len(tokenizer)))


def test_foreign_words_are_spelled_and_not_unknown(tokenizer):
    ids = tokenizer("hexagon, été!").input_ids[1:-1]
    assert len(ids) > 3
    assert tokenizer.unk_token_id not in ids


def test_saved_tokenizer_reads_alike(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = type(tokenizer).from_pretrained(tmp_path)
    texts = list(requests())
    assert loaded(texts).input_ids == tokenizer(texts).input_ids
    assert loaded.model_max_length == models.TOKENS


def test_pipeline_is_a_genuine_sdxl(tiny_sdxl):
    pipe = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)
    assert pipe.vae_scale_factor == 4
    assert pipe.unet.config.addition_embed_type == "text_time"
    assert pipe.unet.config.in_channels == pipe.vae.config.latent_channels == 4
    assert pipe.scheduler.config.clip_sample is False


def test_text_encoders_tell_captions_apart(tiny_sdxl):
    pipe = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)
    texts = [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES]
    with torch.inference_mode():
        embeds, _, pooled, _ = pipe.encode_prompt(texts, device="cpu")
    assert torch.pdist(embeds.flatten(1)).min() > 0.1
    assert torch.pdist(pooled).min() > 0.1


def test_reward_reads_captions_and_images():
    torch.manual_seed(0)
    clip, processor = models.build_reward()
    inputs = processor(
        text=["a circle", "two red crosses"],
        images=[torch.zeros(3, 32, 32, dtype=torch.uint8)] * 2,
        padding="max_length",
        return_tensors="pt",
    )
    assert inputs.input_ids.shape == (2, models.TOKENS)
    assert inputs.pixel_values.shape == (2, 3, 32, 32)
    with torch.no_grad():
        assert clip(**inputs).logits_per_image.shape == (2, 2)
