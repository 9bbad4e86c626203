"""The generate job: prompts from three places, kinds of noise, killed at any moment, and never mixed up."""

import csv
import json
import logging
import logging.handlers
import shutil

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file, save_file

from golden_noise import load
from golden_noise.cli.validation import check
from golden_noise.errors import UserError
from golden_noise.evaluation.job import evaluate
from golden_noise.generation.drawing import claim
from golden_noise.generation.job import generate, wanted, warn_of_unknown_words
from golden_noise.images import about, save_image, to_pil
from golden_noise.noise import draw_noise, sampler_generators
from golden_noise.npnet import NPNet
from golden_noise.prompts import Prompt


@pytest.fixture
def job(compose_job, tmp_path):
    """Composes a checked config with a network that moves the noise."""
    torch.manual_seed(0)
    network = NPNet((4, 8, 8), (16, 128))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    network.save_pretrained(tmp_path / "train/npnet/best")

    def compose(*overrides):
        config = compose_job("generate", f"npnet={tmp_path}/train", "pipeline.steps=2", *overrides)
        check(config)
        return config

    return compose


def files(folder, pattern="*/*.png"):
    return sorted(path.relative_to(folder).as_posix() for path in folder.glob(pattern))


def pixels(path):
    return np.asarray(Image.open(path))


def test_one_prompt_and_seed_give_three_pictures_that_say_what_they_are(job, tmp_path, capsys):
    generate(job("prompt=a red circle", "seed=3"))
    names = [f"{kind}/000000_seed3.png" for kind in ("standard", "golden", "side_by_side")]
    assert files(tmp_path / "run") == sorted(names)
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "run" / name) for name in names]
    golden = about(tmp_path / "run" / names[1])
    assert (golden["prompt"], golden["seed"], golden["noise"]) == ("a red circle", 3, "golden")
    assert golden["made_by"]["pipeline"]["steps"] == 2
    assert len(golden["made_by"]["npnet"]) == 64  # the hash of the weights
    assert "npnet" not in about(tmp_path / "run" / names[0])["made_by"]
    assert (pixels(tmp_path / "run" / names[0]) != pixels(tmp_path / "run" / names[1])).any()
    assert Image.open(tmp_path / "run" / names[2]).width > 2 * 256  # 32 pixels, enlarged
    lines = [json.loads(line) for line in (tmp_path / "run/metadata.jsonl").read_text().splitlines()]
    assert [line["file_name"] for line in lines] == names[:2]
    assert OmegaConf.load(tmp_path / "run/config.yaml").pipeline.steps == 2


def test_what_it_draws_can_be_evaluated(job, compose_job, tmp_path):
    (tmp_path / "some.csv").write_text("caption,task\na red circle,one\na blue square,two\n")
    places = [f"paths.outputs={tmp_path}", f"folder={tmp_path}/drawn"]
    generate(job("prompts=file", f"prompts.path={tmp_path}/some.csv", "seeds=[7,5]", *places))
    options = ["evaluation=generated", f"evaluation.folder={tmp_path}/drawn", "~metric.reward"]
    config = compose_job("evaluate", *options)
    check(config)
    summary = evaluate(config)
    found = summary["methods"]["npnet"]["strict"]
    assert (found["n"], {task: part["n"] for task, part in found["tasks"].items()}) == (4, {"one": 2, "two": 2})
    assert set(summary["diversity"]["pixels"]["differences"]) == {"npnet"}
    rows = list(csv.DictReader((tmp_path / "run/results.csv").open()))
    assert [row["seed"] for row in rows[::2]] == ["7", "5", "7", "5"]
    assert rows[1]["image"] == f"{tmp_path}/drawn/golden/000000_seed7.png"


@pytest.fixture
def said():
    """What diffusers and transformers say."""
    handler = logging.handlers.BufferingHandler(1_000)
    libraries = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    for library in libraries:
        library.addHandler(handler)
    yield handler.buffer
    for library in libraries:
        library.removeHandler(handler)


def test_words_that_are_cut_off_are_named_once(job, said):
    words = "a red circle left of a blue square and a green triangle above a yellow cross and a red circle"
    generate(job(f"prompt={words}"))
    assert [record.getMessage().split(":")[-1] for record in said] == [" ['yellow cross and a red circle']"]


def test_how_far_the_noise_moves(job, tmp_path):
    generate(job("prompt=a red circle", "strength=0"))
    standard, golden = (tmp_path / f"run/{noise}/000000_seed0.png" for noise in ("standard", "golden"))
    assert (pixels(standard) == pixels(golden)).all()
    assert "strength" not in about(standard)["made_by"] and about(golden)["made_by"]["strength"] == 0
    with pytest.raises(UserError, match=r"golden was made with strength=0, now strength=0.5"):
        generate(job("prompt=a red circle", "strength=0.5"))
    with pytest.raises(UserError, match=r"golden was made with strength=0, now strength=\(absent\)"):
        generate(job("prompt=a red circle", "strength=1"))


def test_a_search_is_a_kind_of_noise_too(job, tmp_path):
    generate(job("prompt=a red circle", "noise=search"))
    assert files(tmp_path / "run") == ["search/000000_seed0.png"]
    assert about(tmp_path / "run/search/000000_seed0.png")["made_by"]["search"]["rounds"] == 1


def test_a_file_of_prompts_with_several_seeds(job, tmp_path):
    (tmp_path / "some.csv").write_text("caption,task\na red circle,one\na blue square,two\n")
    generate(job("prompts=file", f"prompts.path={tmp_path}/some.csv", "seeds=[7,5]", "batch_size=3"))
    expected = [f"{i:06d}_seed{seed}.png" for i, seed in enumerate([7, 5, 7, 5])]
    assert files(tmp_path / "run", "golden/*.png") == [f"golden/{name}" for name in expected]
    lines = [json.loads(line) for line in (tmp_path / "run/metadata.jsonl").read_text().splitlines()]
    assert [line["task"] for line in lines[::2]] == ["one", "one", "two", "two"]
    first, last = (Image.open(tmp_path / f"run/standard/{name}") for name in (expected[0], expected[2]))
    assert first.tobytes() != last.tobytes()
    assert min(Image.open(tmp_path / "run/sheet.png").size) > 500


def test_seeds_of_every_source(job):
    assert [p.seed for p in wanted(job("prompt=a", "seed=4", "images_per_prompt=3"))] == [4, 5, 6]
    items = wanted(job("prompts=shapes_test", "prompts.count=2", "images_per_prompt=2"))
    assert [p.index for p in items] == [0, 1, 2, 3]
    assert items[1].text == items[0].text and items[1].seed == items[0].seed + 1


def test_no_two_images_of_equal_captions_have_one_noise(job, tmp_path):
    (tmp_path / "own.jsonl").write_text("".join(f'{{"caption": "a", "seed": {seed}}}\n' for seed in (1, 2, 2**32 + 4)))
    own = wanted(job("prompts=file", f"prompts.path={tmp_path}/own.jsonl", "images_per_prompt=3"))
    assert [item.seed for item in own] == [1, 3, 5, 2, 6, 7, 2**32 + 4, 2**32 + 8, 2**32 + 9]
    (tmp_path / "some.txt").write_text("a red circle\na red circle\n")
    items = wanted(job("prompts=file", f"prompts.path={tmp_path}/some.txt", "images_per_prompt=3"))
    assert len({item.seed for item in items}) == 6
    firsts = wanted(job("prompts=file", f"prompts.path={tmp_path}/some.txt"))
    assert [item.seed for item in items[::3]] == [item.seed for item in firsts]


def test_what_is_to_be_drawn_is_said_first(job, tmp_path, capsys):
    (tmp_path / "some.txt").write_text("a red circle\ntwo crosses\n")
    generate(job("prompts=file", f"prompts.path={tmp_path}/some.txt", "seeds=[1,2]", "noise=standard"))
    said = f"2 prompts from {tmp_path}/some.txt, 2 noises each (first: 'a red circle'; last: 'two crosses')\n"
    assert capsys.readouterr().err.startswith(said)


def test_other_settings_prompts_and_foreign_images_are_refused(job, tmp_path):
    generate(job("prompt=a red circle"))
    with pytest.raises(UserError, match=r"standard was made with pipeline.steps=2, now pipeline.steps=3"):
        generate(job("prompt=a red circle", "pipeline.steps=3"))
    with pytest.raises(UserError, match=r"is of 'a red circle' .*, but now item 0 is 'two crosses'"):
        generate(job("prompt=two crosses"))
    mine = tmp_path / "run/search/mine.png"
    mine.parent.mkdir()
    mine.write_bytes(b"precious")
    with pytest.raises(UserError, match="images that this job did not draw"):
        generate(job("prompt=a red circle", "noise=search"))
    assert mine.read_bytes() == b"precious"


def test_a_further_kind_of_noise_keeps_what_is_there(job, tmp_path):
    generate(job("prompt=a red circle"))
    before = (tmp_path / "run/standard/000000_seed0.png").stat().st_mtime_ns
    generate(job("prompt=a red circle", "noise=[standard,golden,search]"))
    assert (tmp_path / "run/standard/000000_seed0.png").stat().st_mtime_ns == before
    assert Image.open(tmp_path / "run/side_by_side/000000_seed0.png").width > 3 * 256


def test_unknown_words_are_named_once(capsys):
    items = [Prompt(0, "a red zebra, left", 0), Prompt(1, "a Zebra", 1)]
    warn_of_unknown_words(items, None)
    assert capsys.readouterr().err == ""
    warn_of_unknown_words(items, ["a", "red", "left"])
    assert capsys.readouterr().err.count("zebra") == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "no prompt: add prompt="),
        (["prompt=' '"], "no prompt: add prompt="),
        (["prompt=a", "prompts=shapes_test"], "both given"),
        (["prompt=a", "seeds=3"], "must be a list"),
        (["prompt=a", "seeds=[1,-1]"], "each an integer from 0 to 4294967295"),
        (["prompt=a", "seeds=[1,1]"], "at least one value, each once"),
        (["prompt=a", "seeds=[1]", "images_per_prompt=2"], "give one of them"),
        (["prompt=a", "noise=npnet"], "one of standard, golden, search"),
        (["prompt=a", "noise=[golden,golden]"], "at least one value, each once"),
        (["prompt=a", "batch_size=0"], ">= 1"),
        (["prompt=a", "strength=2.5"], "strength=2.5 must be a number from 0 to 2"),
        (["prompt=a", "strength=much"], "strength=much must be a number from 0 to 2"),
    ],
)
def test_mistakes_are_named_before_anything_is_loaded(job, options, words):
    with pytest.raises(UserError, match=words):
        job(*options)


def _generate(plain):
    torch.set_num_threads(1)
    generate(OmegaConf.create(plain))


@pytest.mark.long
@pytest.mark.parametrize("count", [*(pytest.param(count, marks=pytest.mark.slow) for count in (1, 3)), 2])
def test_killed_at_random_moments_the_images_come_out_the_same(job, tmp_path, killed_at_random, count):
    options = ["prompts=shapes_test", "prompts.count=20", "batch_size=4", "noise=[standard,golden,search]"]
    plain = OmegaConf.to_container(job(*options), resolve=True)

    def content():
        names = [*files(tmp_path / "run"), "metadata.jsonl", "sheet.png"]
        assert len(names) == 20 * 4 + 2
        return {str(name): (tmp_path / "run" / name).read_bytes() for name in names}

    killed_at_random(_generate, plain, tmp_path / "run", content, moments=(0.2, 0.8), kills=3, count=count)


@pytest.fixture
def overflowing(tiny_sdxl, tmp_path):
    """A pipeline whose VAE gives no numbers."""
    folder = shutil.copytree(tiny_sdxl, tmp_path / "overflowing")
    file = folder / "vae/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["decoder.conv_out.bias"][:] = torch.nan
    save_file(tensors, file, {"format": "pt"})
    return folder


def test_an_image_that_is_no_picture_stops_the_job_with_what_helps(job, overflowing, tmp_path):
    with pytest.raises(UserError, match=r"'a red circle' \(seed 3\) from standard noise is not finite") as error:
        generate(job("prompt=a red circle", "seed=3", f"pipeline.model.source={overflowing}"))
    assert "check the weights" in str(error.value)  # float32 already
    assert not files(tmp_path / "run")


def test_in_one_step_no_search_is_asked_for(job, tmp_path):
    options = ["prompt=a red circle", "pipeline.steps=1"]
    generate(job(*options))
    assert len(files(tmp_path / "run")) == 3
    with pytest.raises(InstantiationException, match=r"search\.steps=1 must be >= 2"):
        generate(job(*options, "noise=[standard,search]"))


@pytest.mark.parametrize("replace", [False, True])
def test_images_of_unknown_origin_are_not_replaced_either(tmp_path, replace):
    (tmp_path / "mine.png").write_bytes(b"precious")
    with pytest.raises(UserError, match="images that this job did not draw"):
        claim(tmp_path, {"steps": 2}, replace)
    assert (tmp_path / "mine.png").read_bytes() == b"precious"


KINDS = {"standard": "standard", "npnet": "golden"}
GENEVAL = """{"tag": "colors", "include": [{"class": "cup", "count": 1, "color": "red"}], "prompt": "a red circle"}
{"tag": "counting", "include": [{"class": "cup", "count": 2}], "exclude": [], "prompt": "two squares"}
"""


def test_a_run_for_genevals_evaluator_can_be_evaluated_here_too(job, compose_job, tmp_path):
    (tmp_path / "evaluation_metadata.jsonl").write_text(GENEVAL)
    chosen = ["prompts=geneval", f"prompts.path={tmp_path}/evaluation_metadata.jsonl", "images_per_prompt=2"]
    generate(job(*chosen, "layout=geneval", "batch_size=3", f"folder={tmp_path}/drawn"))
    names = [f"0000{prompt}/samples/0000{sample}.png" for prompt in (0, 1) for sample in (0, 1)]
    assert files(tmp_path / "drawn/golden", "**/*.png") == names
    lines = [json.loads((tmp_path / f"drawn/golden/0000{i}/metadata.jsonl").read_text()) for i in (0, 1)]
    written = [json.loads(line) for line in GENEVAL.splitlines()]
    assert [line | {"exclude": []} for line in lines] == [line | {"exclude": []} for line in written]
    assert len(files(tmp_path / "drawn", "side_by_side/*.png")) == 4
    places = [f"evaluation.images.{name}={tmp_path}/drawn/{kind}" for name, kind in KINDS.items()]
    generated = ["evaluation=generated", f"evaluation.folder={tmp_path}/drawn"]
    found = []
    for options in (generated, ["evaluation=folders", "evaluation.prompts=null", *places]):
        config = compose_job("evaluate", *options, "~metric.reward", f"folder={tmp_path}/{options[0]}")
        check(config)
        found.append(evaluate(config)["methods"]["npnet"]["strict"])
    assert found[0] == found[1]
    assert {task: part["n"] for task, part in found[0]["tasks"].items()} == {"colors": 2, "counting": 2}


def test_genevals_layout_of_other_prompts_is_noted(job, tmp_path, capsys):
    generate(job("prompt=a red circle", "layout=geneval", "noise=standard"))
    assert "note: GenEval's evaluator needs the prompts of prompts=geneval" in capsys.readouterr().err
    assert json.loads((tmp_path / "run/standard/00000/metadata.jsonl").read_text()) == {"prompt": "a red circle"}


def test_a_run_for_t2i_compbenchs_evaluators(job, tmp_path):
    for name, text in {"color": "a red circle", "non_spatial": "two squares.\ta note"}.items():
        (tmp_path / f"{name}_val.txt").write_text(f"{text}\n")
    chosen = ["prompts=t2i_compbench", f"prompts.path={tmp_path}"]
    config = job(*chosen, "layout=t2i_compbench", "seeds=[3,4]", "noise=standard")
    config.prompts.files = {"color": "color_val.txt", "non_spatial": "non_spatial_val.txt"}
    generate(config)
    names = [f"color/samples/a red circle_00000{i}.png" for i in (0, 1)]
    names += [f"non_spatial/samples/two squares._00000{i}.png" for i in (0, 1)]
    assert files(tmp_path / "run/standard", "**/*.png") == names


@pytest.mark.parametrize("form", ["png", "jpg", "webp"])
def test_an_image_can_be_drawn_again_from_what_it_carries(job, tmp_path, form):
    text = 'a "red" circle,\nleft of 🦊'
    chosen = [f"format={form}", "quality=80"] if form != "png" else []
    config = job("prompt=a", "seed=5", *chosen)
    config.prompt = text
    generate(config)
    names = [f"{kind}/000000_seed5.{form}" for kind in ("standard", "golden")]
    for kind, name in zip(("standard", "golden"), names, strict=True):
        carried = about(tmp_path / "run" / name)
        assert (carried["prompt"], carried["noise"]) == (text, kind)
        pipeline = instantiate(carried["made_by"]["pipeline"])
        noise, prompt = draw_noise([carried["seed"]], pipeline.latent_shape), pipeline.encode([carried["prompt"]])
        if kind == "golden":
            with torch.no_grad():
                noise = load(carried["npnet"], pipeline=pipeline).golden(noise, prompt)
        [image] = to_pil(pipeline.sample(prompt, noise, generator=sampler_generators([carried["seed"]])))
        save_image(image, tmp_path / f"again.{form}", {}, carried["made_by"].get("quality"))
        assert (pixels(tmp_path / f"again.{form}") == pixels(tmp_path / "run" / name)).all()


def test_images_of_other_formats_and_layouts_are_kept_and_never_mixed(job, tmp_path):
    config = job("prompt=a red circle", "format=jpg")
    generate(config)
    path = tmp_path / "run/golden/000000_seed0.jpg"
    before = path.stat().st_mtime_ns
    generate(config)
    assert path.stat().st_mtime_ns == before
    for others in (["format=webp"], ["format=jpg", "quality=10"], ["layout=geneval"], []):
        with pytest.raises(UserError, match=r"was made with (layout|format|quality)="):
            generate(job("prompt=a red circle", *others))
    assert files(tmp_path / "run") == ["side_by_side/000000_seed0.png"]


def test_settings_that_do_not_go_together_are_refused_first(job, tmp_path):
    for settings, reason in {
        ("quality=80",): "quality=80 has no effect",
        ("layout=geneval", "format=jpg"): "layout=geneval needs format=png",
        ("format=gif",): "format=gif must be one of png, jpg, webp",
        ("format=jpg", "quality=0"): "quality=0 must be an integer from 1 to 100",
        ("layout=own",): "layout=own must be one of flat, geneval, t2i_compbench",
    }.items():
        with pytest.raises(UserError, match=reason):
            job("prompt=a", *settings)
    config = job("prompt=a", "format=jpg")
    config.prompt = "🦊" * 10_000
    with pytest.raises(UserError, match="format=jpg has no place for what made an image") as error:
        generate(config)
    assert "\n" not in str(error.value) and not files(tmp_path / "run", "**/*.jpg")
