"""Weighted and long prompts through compel, on tiny CLIPs that read 16 tokens at once."""

import io
import sys
import tarfile

import numpy as np
import pytest
import torch

from golden_noise import identity
from golden_noise.cli.config import job_config
from golden_noise.cli.validation import check
from golden_noise.collecting.job import collect
from golden_noise.errors import UserError
from golden_noise.evaluation.job import evaluate
from golden_noise.generation.job import generate
from golden_noise.npnet import NPNet
from golden_noise.pipelines.flux import FluxPipeline
from golden_noise.pipelines.sdxl import SDXLPipeline
from golden_noise.pipelines.stable_diffusion import SDPipeline
from golden_noise.pipelines.stable_diffusion_3 import SD3Pipeline

from .loaded import load, refusal, same

pytest.importorskip("compel")

FAMILIES = {"tiny_sdxl": SDXLPipeline, "tiny_sd": SDPipeline}
LONG = "two circles above a blue square left of a red triangle and four green crosses below a purple square"  # 19 words


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.getfixturevalue(request.param), FAMILIES[request.param]


def encode(family, *prompts, negative="", **settings):
    folder, kind = family
    return load(folder, kind, negative_prompt=negative, **settings).encode(list(prompts))


def close(one, other):
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        torch.testing.assert_close(tensor, other.tensors[name])
    if one.negative is not None:
        close(one.negative, other.negative)


@pytest.mark.parametrize("negative", ["", "a blue square"])
def test_without_weights_it_is_the_plain_embedding(family, negative):
    prompts = ["a red circle", "", "a red circle", "two crosses above a blue square"]
    weighted = encode(family, *prompts, negative=negative, prompt_syntax="weighted")
    close(weighted, encode(family, *prompts, negative=negative))
    assert weighted.texts == tuple(prompts)


def test_plain_is_what_it_was(family):
    prompts = ["a (red:1.3) circle", LONG]
    close(encode(family, *prompts), encode(family, *prompts, prompt_syntax="plain", prompt_chunks=1))
    folder, kind = family
    pipeline = load(folder, kind)
    expected = pipeline._encode(prompts, None)
    assert same(pipeline.encode(prompts).tensors, expected.tensors)


def test_weights_move_the_embedding_and_one_is_none(family):
    folder, kind = family
    pipeline = load(folder, kind, prompt_syntax="weighted")

    def embeds(prompt):
        return pipeline.encode([prompt]).embeds

    plain = embeds("a red circle")
    torch.testing.assert_close(embeds("a (red:1.0) circle"), plain)
    gaps = [(embeds(f"a (red:{weight}) circle") - plain).norm() for weight in (1.2, 1.5, 2.0)]
    assert 0 < gaps[0] < gaps[1] < gaps[2]
    downwards = [(embeds(f"a (red:{weight}) circle") - plain).norm() for weight in (0.9, 0.5, 0.1)]
    assert 0 < downwards[0] < downwards[1] < downwards[2]
    torch.testing.assert_close(embeds("a (red) circle"), embeds("a (red:1.1) circle"))
    assert embeds("([]:1.2) a [red] 東京 (é:0.3) ( :0.5)").isfinite().all()


def test_the_weight_acts_as_compel_says(family):
    """z(w) = z(empty) + w (z - z(empty)) at the tokens of the fragment, after the mark of the start."""
    plain, empty, weighted = (
        encode(family, prompt, prompt_syntax="weighted").embeds for prompt in ("a red circle", "", "a (red:1.7) circle")
    )
    expected = plain.clone()
    expected[:, 2] = empty[:, 2] + 1.7 * (plain - empty)[:, 2]
    torch.testing.assert_close(weighted, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(family, dtype):
    prompt = "(a:0) red (circle:1.5) (above:0) a blue [square]"
    half, full = (encode(family, prompt, prompt_syntax="weighted", dtype=each) for each in (dtype, "float32"))
    assert half.embeds.dtype == getattr(torch, dtype)
    assert (half.embeds.float() - full.embeds).norm() < 0.03 * full.embeds.norm()


def test_a_long_prompt_has_its_chunks_and_short_ones_are_filled_up(family):
    both = encode(family, LONG, "a red circle", prompt_chunks=3)
    assert both.embeds.shape[:2] == both.negative.embeds.shape[:2] == (2, 48)
    words = LONG.split()
    first, second = " ".join(words[:14]), " ".join(words[14:])
    parts = encode(family, first, second, "a red circle", "")
    rows = parts.embeds
    torch.testing.assert_close(both.embeds[0], torch.cat([rows[0], rows[1], rows[3]]))
    torch.testing.assert_close(both.embeds[1], torch.cat([rows[2], rows[3], rows[3]]))
    if both.pooled is not None:
        torch.testing.assert_close(both.pooled[1], parts.pooled[2])


def test_the_other_prompts_of_a_batch_change_nothing(family):
    together, alone = (encode(family, *prompts, prompt_chunks=2) for prompts in ([LONG, "a circle"], ["a circle"]))
    assert torch.equal(together.embeds[1:], alone.embeds)


def test_what_is_cut_off_is_said_once(family, capsys):
    cut = encode(family, f"{LONG} {family[1].__name__}", prompt_chunks=1, prompt_syntax="weighted")
    encode(family, f"{LONG} {family[1].__name__}", prompt_chunks=1, prompt_syntax="weighted")
    (line,) = capsys.readouterr().err.splitlines()
    assert "is cut after 14 tokens: pipeline.prompt_chunks=" in line
    torch.testing.assert_close(cut.embeds, encode(family, " ".join(LONG.split()[:14])).embeds)


@pytest.mark.parametrize(
    "prompt", ["<|endoftext|>", "a (<|endoftext|> b:0.5) c", "\0", "x" * 500, "(a:0.5) " * 30, "\u200b"]
)
def test_odd_prompts_are_encoded_or_named(family, prompt):
    try:
        assert encode(family, prompt, prompt_syntax="weighted", prompt_chunks=2).embeds.isfinite().all()
    except UserError as error:
        assert "\n" not in str(error)


def test_families_without_it_refuse_it(tiny_sd3, tiny_flux, tiny_sdxl, monkeypatch):
    for folder, kind in ((tiny_sd3, SD3Pipeline), (tiny_flux, FluxPipeline)):
        assert "pipeline.prompt_syntax=weighted: only" in refusal(folder, kind, prompt_syntax="weighted")
        assert "pipeline.prompt_chunks=2: only" in refusal(folder, kind, prompt_chunks=2)
    monkeypatch.setitem(sys.modules, "compel", None)
    assert "pip install 'golden-noise[prompts]'" in refusal(tiny_sdxl, prompt_chunks=2)
    assert "( at letter 3 is never closed" in str(raised(tiny_sdxl, "a (red", monkeypatch))


def raised(folder, prompt, monkeypatch):
    monkeypatch.undo()
    with pytest.raises(UserError) as error:
        load(folder, prompt_syntax="weighted").encode([prompt])
    return error.value


def test_images_of_long_prompts(family):
    folder, kind = family
    pipeline = load(folder, kind, guidance=3.0, prompt_chunks=2, prompt_syntax="weighted")
    noise = pipeline.draw_noise([0, 0])
    images = pipeline.sample(pipeline.encode([LONG, f"{LONG[:-6]} (circle:1.5)"]), noise)
    assert images.isfinite().all() and not torch.equal(images[0], images[1])


# In the jobs ---------------------------------------------------------------------------------------------------


def test_the_settings_reach_everything(tiny_sdxl, tmp_path, capsys):
    """Pairs hold all tokens, a network is trained on them, and one of fewer tokens reads them by `long_prompt`."""
    (tmp_path / "prompts.txt").write_text(f"{LONG}\na (red:1.4) circle\na [blue] square\n")
    common = [
        "pipeline=shapes",
        f"pipeline.model.source={tiny_sdxl}",
        "pipeline.bundled=false",
        "pipeline.steps=2",
        "pipeline.prompt_syntax=weighted",
        "pipeline.prompt_chunks=2",
        "device=cpu",
        f"paths.outputs={tmp_path}",
    ]
    prompts = ["prompts=file", f"prompts.path={tmp_path}/prompts.txt"]

    def job(name, *options):
        config = job_config(name, [*common, *options])
        check(config)
        return config

    config = job("collect", *prompts, f"data_dir={tmp_path}/pairs", "collection.select_by=null")
    collect(config)
    assert config.pipeline.embeds_shape == [32, 128]
    with tarfile.open(next((tmp_path / "pairs").glob("*.tar"))) as shard:
        names = [name for name in shard.getnames() if name.endswith("embeds.npy")]
        stored = [np.load(io.BytesIO(shard.extractfile(name).read())) for name in names]
    assert [embeds.shape for embeds in stored] == [(32, 128)] * 3
    NPNet((4, 8, 8), (16, 128)).save_pretrained(tmp_path / "npnet")
    drawing = [*prompts, f"npnet={tmp_path}/npnet", "name=x", "long_prompt=average"]
    generate(job("generate", *drawing, f"folder={tmp_path}/drawn"))
    assert len([*(tmp_path / "drawn/golden").glob("*.png")]) == 3
    options = ["logger=csv", "metric=redness", "evaluation.methods=[standard,npnet]"]
    results = evaluate(job("evaluate", *drawing, *options, f"folder={tmp_path}/evaluated"))
    assert results["methods"].keys() == {"standard", "npnet"}


def test_identities_tell_the_syntax_apart_and_are_as_ever_without_it():
    shapes = {"name": "x", "latent_shape": [4, 8, 8], "embeds_shape": [16, 128]}
    assert identity.pipeline({"pipeline": shapes | {"prompt_syntax": "plain"}}) == shapes
    assert identity.pipeline({"pipeline": shapes | {"prompt_syntax": "weighted"}})["prompt_syntax"] == "weighted"
    plain = {"source": "x", "prompt_syntax": "plain", "prompt_chunks": 1}
    assert identity.model(plain, "float32") == {"source": "x", "dtype": "float32"}
    assert identity.model(plain | {"prompt_chunks": 2}, "float32")["prompt_chunks"] == 2
    assert identity.model(plain | {"prompt_syntax": "weighted"}, "float32")["prompt_syntax"] == "weighted"
