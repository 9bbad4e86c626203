"""The evaluate job: drawn or found images, several methods, killed at any moment, and never mixed up."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file, save_file

from golden_noise.cli.validation import check
from golden_noise.errors import UserError
from golden_noise.evaluation.job import evaluate, evaluate_job
from golden_noise.images import TEXT, about, save_png
from golden_noise.npnet import NPNet

SMALL = ["prompts.count=24", "pipeline.steps=2", "evaluation.batch_size=6", "~metric.reward"]


@pytest.fixture
def npnets(tmp_path):
    """Two folders of different networks."""

    def build(seed):
        torch.manual_seed(seed)
        network = NPNet((4, 8, 8), (16, 128))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
        network.save_pretrained(tmp_path / f"npnet{seed}")
        return str(tmp_path / f"npnet{seed}")

    return build(0), build(1)


def drawn(folder):
    """Modification times of all images."""
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.glob("images/*/*.png")}


def test_wandb_gets_figures_and_images(compose_job, tmp_path, read_offline_run):
    evaluate_job(
        compose_job(
            "evaluate", *SMALL, "evaluation.methods=[standard,search]", "logger=wandb", "logger.wandb.group=tests"
        )
    )
    (log,) = tmp_path.rglob("*.wandb")
    logged = read_offline_run(log)
    summary = {key: value for name, row in logged if name == "summary" for key, value in row.items()}
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert summary["eval/strict/search"] == results["methods"]["search"]["strict"]["mean"]
    gain = next(c for c in results["comparisons"] if (c["metric"], c["task"]) == ("soft", "all"))
    assert summary["eval/soft/search_minus_standard"] == gain["difference"]
    assert next(row for name, row in logged if name == "config" and "pipeline" in row)["pipeline"]["steps"] == 2
    table = json.loads(next(tmp_path.rglob("*.table.json")).read_text())
    assert {"prompt", "seed", "standard", "search", "strict/search"} <= set(table["columns"])
    assert len(table["data"]) == 24


def test_several_methods_in_one_run(compose_job, npnets, tmp_path):
    names = "evaluation.methods=[standard,search,npnet,shuffled,best_of_n]"
    extra = [
        names,
        f"npnet={npnets[0]}",
        f"+evaluation.checkpoints.second={npnets[1]}",
        "evaluation.best_of.metric=soft",
    ]
    summary = evaluate(compose_job("evaluate", *SMALL, *extra))
    assert list(summary["methods"]) == ["standard", "search", "npnet", "shuffled", "best_of_n", "second"]
    best = next(c for c in summary["comparisons"] if (c["metric"], c["b"], c["task"]) == ("soft", "best_of_n", "all"))
    assert best["losses"] == 0 and best["wins"] > 0
    assert json.loads((tmp_path / "run/results.json").read_text()) == summary
    assert (tmp_path / "run/report.html").stat().st_size > 50_000
    assert summary["noise"]["move"]["methods"]["standard"]["mean"] == 0
    assert summary["noise"]["move"]["methods"]["second"]["mean"] > 1e-4
    assert summary["noise"]["variance"]["methods"]["standard"]["mean"] == pytest.approx(1, abs=0.05)


def test_several_searches_in_one_run(compose_job, tmp_path):
    extra = ["+search@evaluation.searches.long=redenoise", "evaluation.searches.long.rounds=2"]
    extra += ["+search@evaluation.searches.scaled=rescale", "evaluation.searches.scaled.factor=1"]
    summary = evaluate(compose_job("evaluate", *SMALL, "evaluation.methods=[standard,search]", *extra))
    assert list(summary["methods"]) == ["standard", "search", "long", "scaled"]
    moves = {name: found["mean"] for name, found in summary["noise"]["move"]["methods"].items()}
    assert moves["long"] > moves["search"] > moves["scaled"] == moves["standard"] == 0
    made_by = {name: json.loads((tmp_path / f"run/images/{name}/made_by.json").read_text()) for name in moves}
    assert made_by["long"]["search"]["rounds"] == 2 and made_by["search"]["search"]["rounds"] == 1
    assert made_by["scaled"]["search"]["factor"] == 1 and "search" not in made_by["standard"]


def test_the_cost_of_each_method_is_counted(compose_job, tmp_path, npnets, capsys):
    """Two steps of the sampler beside what the noise took; images of an earlier version have no cost to show."""
    job = [*SMALL, "evaluation.methods=[standard,search,npnet,rescaled]", f"npnet={npnets[0]}", "search=redenoise"]
    summary = evaluate(compose_job("evaluate", *job))
    assert summary["calls"] == {"standard": 2, "search": 5, "npnet": 2, "rescaled": 2}
    assert "calls" in capsys.readouterr().out and "calls</th>" in (tmp_path / "run/report.html").read_text()
    for path in tmp_path.glob("run/images/search/*.png"):
        facts = about(path)
        assert facts.pop("calls") == 5
        save_png(Image.open(path), path, {TEXT: json.dumps(facts)})
    assert evaluate(compose_job("evaluate", *job))["calls"] == {"standard": 2, "npnet": 2, "rescaled": 2}


def test_diversity_is_measured_where_prompts_repeat(compose_job, tmp_path):
    (tmp_path / "few.txt").write_text("a red circle\na blue square\n")
    file = ["prompts=file", f"prompts.path={tmp_path}/few.txt", "prompts.repeats=3", "pipeline.bundled=false"]
    methods = ["evaluation.methods=[standard,search]", "evaluation.batch_size=4", "pipeline.steps=2"]
    summary = evaluate(compose_job("evaluate", *file, *methods))
    assert set(summary["diversity"]) == {"pixels", "reward"}
    for entry in summary["diversity"].values():
        assert entry["methods"]["search"]["n"] == 2
        assert entry["methods"]["standard"]["mean"] > 0


def test_nothing_is_drawn_or_scored_twice(compose_job, tmp_path):
    config = compose_job("evaluate", *SMALL, "evaluation.methods=[standard,search]")
    first = evaluate(config)
    images, scores = drawn(tmp_path / "run"), (tmp_path / "run/scores.jsonl").read_bytes()
    assert evaluate(config) == first
    assert drawn(tmp_path / "run") == images
    assert (tmp_path / "run/scores.jsonl").read_bytes() == scores


def test_a_further_method_uses_the_images_that_are_there(compose_job, tmp_path):
    evaluate(compose_job("evaluate", *SMALL, "evaluation.methods=[standard]"))
    before = drawn(tmp_path / "run")
    evaluate(compose_job("evaluate", *SMALL, "evaluation.methods=[standard,search]"))
    after = drawn(tmp_path / "run")
    assert len(after) == 48 and before.items() <= after.items()


def test_images_of_other_settings_weights_or_prompts_are_refused(compose_job, npnets):
    methods = "evaluation.methods=[standard,npnet]"
    evaluate(compose_job("evaluate", *SMALL, methods, f"npnet={npnets[0]}"))
    with pytest.raises(UserError, match=r"standard was made with pipeline.steps=2, now pipeline.steps=3"):
        evaluate(compose_job("evaluate", *SMALL, methods, f"npnet={npnets[0]}", "pipeline.steps=3"))
    with pytest.raises(UserError, match=r"images/npnet was made with other weights of npnet"):
        evaluate(compose_job("evaluate", *SMALL, methods, f"npnet={npnets[1]}"))
    with pytest.raises(UserError, match=r"000000.png is of .* give another name"):
        evaluate(compose_job("evaluate", *SMALL, methods, f"npnet={npnets[0]}", "seed=1"))
    with pytest.raises(UserError, match=r"npnet_settings\.fit=exact, now npnet_settings\.fit=tile"):
        evaluate(compose_job("evaluate", *SMALL, methods, f"npnet={npnets[0]}", "fit=tile"))


def test_replaced_weights_in_the_same_folder_are_noticed(compose_job, tiny_sdxl, tmp_path):
    shutil.copytree(tiny_sdxl, tmp_path / "pipeline")
    options = [*SMALL, "evaluation.methods=[standard]", f"pipeline.model.source={tmp_path}/pipeline"]
    first = evaluate(compose_job("evaluate", *options))
    weights = tmp_path / "pipeline/unet/diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    os.utime(weights, (0, 0))
    assert evaluate(compose_job("evaluate", *options)) == first  # a copy of the same is the same
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match=r"was made with other files in .*/pipeline"):
        evaluate(compose_job("evaluate", *options))


def test_another_number_of_prompts_is_said_in_words(compose_job, npnets):
    options = [*SMALL, f"npnet={npnets[0]}", "evaluation.methods=[standard,shuffled]", "~metric.soft"]
    evaluate(compose_job("evaluate", *options))
    with pytest.raises(UserError, match=r"shuffled was made with prompts.count=24, now prompts.count=30"):
        evaluate(compose_job("evaluate", *options, "prompts.count=30"))


def test_images_of_unknown_origin_are_neither_used_nor_deleted(compose_job, tmp_path):
    mine = tmp_path / "run/images/standard/mine.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"precious")
    with pytest.raises(UserError, match="images that this job did not draw"):
        evaluate(compose_job("evaluate", *SMALL, "evaluation.methods=[standard]"))
    assert mine.read_bytes() == b"precious"


def test_a_network_from_training_replaces_the_images_of_an_older_one(compose_job, npnets, tmp_path):
    config = compose_job("evaluate", *SMALL, "evaluation.methods=[standard,npnet]")
    one, two = (evaluate(config, NPNet.from_pretrained(folder)) for folder in npnets)
    assert one["methods"]["standard"] == two["methods"]["standard"]
    assert one["noise"]["move"]["methods"]["npnet"] != two["noise"]["move"]["methods"]["npnet"]


def test_a_network_that_gives_no_numbers_is_named(compose_job, npnets):
    network = NPNet.from_pretrained(npnets[0])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(torch.nan)
    with pytest.raises(
        UserError, match=r"method 'npnet' is not finite for 'a .* diverged in training, which a lower recipe.lr avoids"
    ):
        evaluate(compose_job("evaluate", *SMALL, "evaluation.methods=[standard,npnet]"), network)


def test_a_damaged_image_is_named(compose_job, tmp_path):
    config = compose_job("evaluate", *SMALL, "evaluation.methods=[standard]")
    evaluate(config)
    path = tmp_path / "run/images/standard/000003.png"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"cannot read .*000003.png"):
        evaluate(config)
    path.unlink()
    evaluate(config)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["evaluation.methods=[standard,nonsense]"], "unknown method 'nonsense'"),
        (["evaluation.methods=[search]"], "lack 'standard'"),
        (["evaluation.methods=[standard,standard]"], "twice"),
        (["+evaluation.checkpoints.npnet=x"], "a name of its own"),
        (["+evaluation.checkpoints.other=null"], "checkpoints.other=null must be text"),
        (["+search@evaluation.searches.search=zigzag"], "a name of its own"),
        (["+evaluation.searches.other=zigzag"], "searches.other=zigzag must be settings"),
        (["+evaluation.checkpoints.a=x", "+search@evaluation.searches.a=zigzag"], "twice"),
        (["evaluation.best_of.metric=nonsense"], "one of the chosen metrics: strict, soft"),
        (["evaluation.best_of.count=1"], "count=1 must be an integer >= 2"),
        (["~metric.strict", "~metric.soft"], "no metric is left"),
    ],
)
def test_mistakes_in_the_choice_of_methods(compose_job, options, words):
    with pytest.raises(UserError, match=words):
        check(compose_job("evaluate", *SMALL, *options))


@pytest.fixture
def published(tmp_path):
    """A folder as the published code leaves it, and its prompts."""
    rng = np.random.default_rng(0)
    for name in ("origin", "optim"):
        (tmp_path / "published" / name).mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "published" / name / f"{i}.png")
    (tmp_path / "draw.csv").write_text("Prompts,Category\n" + "a red circle,one\na blue square,two\n" * 6)
    return ["prompts=file", f"prompts.path={tmp_path}/draw.csv", "~metric.reward"]


def test_a_folder_of_the_published_code(compose_job, published, tmp_path):
    options = ["evaluation=published", f"evaluation.folder={tmp_path}/published"]
    summary = evaluate(compose_job("evaluate", *options, *published))
    assert {method: found["soft"]["n"] for method, found in summary["methods"].items()} == {"standard": 12, "npnet": 12}
    assert set(summary["methods"]["npnet"]["soft"]["tasks"]) == {"one", "two"}
    assert set(summary["diversity"]["pixels"]["differences"]) == {"npnet"}
    assert summary["noise"] == {}
    assert f"{tmp_path}/published/optim/0.png" in (tmp_path / "run/results.csv").read_text()


def test_the_same_images_tie_whatever_size_another_image_has(compose_job, published, tmp_path):
    shutil.copytree(tmp_path / "published/origin", tmp_path / "published/optim", dirs_exist_ok=True)
    Image.new("RGB", (48, 40), "red").save(tmp_path / "published/optim/7.png")
    options = ["evaluation=published", f"evaluation.folder={tmp_path}/published", *published[:-1]]
    summary = evaluate(compose_job("evaluate", *options, "~metric.strict", "~metric.soft"))
    assert summary["comparisons"][0]["ties"] == 11


def test_one_folder_for_two_methods_is_refused(compose_job, published, tmp_path):
    folder = tmp_path / "published"
    (tmp_path / "link").symlink_to(folder / "origin")
    for other in (folder / "origin", f"{folder}/optim/../origin", tmp_path / "link"):
        folders = [f"evaluation.images.standard={folder}/origin", f"evaluation.images.npnet={other}"]
        with pytest.raises(UserError, match=r"images\.standard and evaluation\.images\.npnet are one folder"):
            evaluate(compose_job("evaluate", "evaluation=folders", *folders))


def test_two_folders_whose_names_are_the_prompts(compose_job, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for text in ("a red circle", "a_blue_square"):
            Image.new("RGB", (32, 32), "red").save(tmp_path / name / f"{text}.png")
    images = [f"evaluation.images.standard={tmp_path}/a", f"evaluation.images.npnet={tmp_path}/b"]
    options = ["evaluation=folders", "evaluation.prompts=null", "~metric.reward"]
    summary = evaluate(compose_job("evaluate", *options, *images))
    assert summary["methods"]["npnet"]["strict"]["n"] == 2
    assert any("too few" in note for note in summary["notes"])
    (tmp_path / "b/extra.png").write_bytes((tmp_path / "b/a red circle.png").read_bytes())
    with pytest.raises(UserError, match=r"a lacks images: extra"):
        evaluate(compose_job("evaluate", *options, *images))


def _evaluate(plain):
    torch.set_num_threads(1)
    evaluate(OmegaConf.create(plain))


@pytest.mark.long
@pytest.mark.parametrize("count", [*(pytest.param(count, marks=pytest.mark.slow) for count in (1, 3)), 2])
def test_killed_at_random_moments_the_results_come_out_the_same(compose_job, npnets, tmp_path, killed_at_random, count):
    methods = ["evaluation.methods=[standard,search,npnet,shuffled]", f"npnet={npnets[0]}", "evaluation.batch_size=4"]
    plain = OmegaConf.to_container(compose_job("evaluate", *SMALL, *methods), resolve=True)

    def content():
        images = sorted((tmp_path / "run/images").rglob("*.png"))
        names = [tmp_path / "run" / name for name in ("results.json", "results.csv", "report.html")]
        return {str(path): path.read_bytes() for path in (*names, *images)}

    killed_at_random(_evaluate, plain, tmp_path / "run", content, moments=(0.05, 0.6), kills=3, count=count)


def test_an_image_that_is_no_picture_stops_the_job_with_what_helps(compose_job, tiny_sdxl, tmp_path):
    folder = shutil.copytree(tiny_sdxl, tmp_path / "overflowing")
    file = folder / "vae/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["decoder.conv_out.bias"][:] = torch.inf
    save_file(tensors, file, {"format": "pt"})
    options = ["evaluation.methods=[standard,search]", f"pipeline.model.source={folder}"]
    with pytest.raises(UserError, match=r"\(seed \d+\) from standard noise is not finite: check the weights"):
        evaluate(compose_job("evaluate", *SMALL, *options))
    assert not list((tmp_path / "run").rglob("*.png"))


def test_in_one_step_without_a_search_and_with_prompts_that_are_cut(compose_job, tmp_path, npnets, capsys):
    long = "a red circle above a blue square " * 4
    (tmp_path / "prompts.txt").write_text("\n".join([f"{long} {n}" for n in range(3)] + ["a red circle"]))
    options = ["prompts=file", f"prompts.path={tmp_path}/prompts.txt", "pipeline.steps=1", f"npnet={npnets[0]}"]
    options += ["~metric.strict", "~metric.soft"]
    summary = evaluate(compose_job("evaluate", *options, "evaluation.methods=[standard,npnet]"))
    line = "reward reads 16 tokens: 3 of 4 prompts are longer, the rest of them is not judged"
    assert line in summary["notes"] and capsys.readouterr().err.count(line) == 1
    with pytest.raises(InstantiationException, match=r"search\.steps=1 must be >= 2"):
        evaluate(compose_job("evaluate", *options, "evaluation.methods=[standard,search]"))


def test_guidance_is_drawn_with_a_sampler_of_its_own(compose_job, tmp_path):
    options = [*SMALL, "evaluation.guided.guidance=3", "evaluation.guided.steps=3"]
    summary = evaluate(compose_job("evaluate", *options, "evaluation.methods=[standard,guided]"))
    assert summary["calls"] == {"standard": 2, "guided": 6}
    assert summary["noise"]["move"]["methods"]["guided"]["mean"] == 0  # standard noise
    sampler = ["pipeline.steps=3", "pipeline.guidance=3", f"folder={tmp_path}/other"]
    evaluate(compose_job("evaluate", *SMALL, *sampler, "evaluation.methods=[standard]"))
    for path in (tmp_path / "run/images/guided").glob("*.png"):
        expected = Image.open(tmp_path / "other/images/standard" / path.name)
        assert np.array_equal(np.array(Image.open(path)), np.array(expected))
    other = compose_job("evaluate", *SMALL, "evaluation.guided.guidance=4", "evaluation.methods=[standard,guided]")
    with pytest.raises(UserError, match=r"pipeline\.guidance=3.*now pipeline\.guidance=4"):
        evaluate(other)
