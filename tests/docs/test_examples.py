"""The worked examples of docs/add_*.md: their files are written and their commands run, as a reader would do it."""

import csv
import json
import runpy
import sys

import pytest
import torch

from golden_noise.npnet import NPNet

from .pages import ROOT, shell_commands, written_files

pytestmark = pytest.mark.long

FEW = ["device=cpu", "pipeline.steps=2", "prompts.count=4"]
PAIRS = ["prompts.count=60", "collection.shard_size=60"]
TRAINING = ["recipe.batch_size=16", "recipe.epochs=1", "data.val_fraction=0.3"]
QUIET = ["callbacks.progress.refresh_rate=0", "sample_every_n_epochs=0", "evaluation.prompts.count=4"]
KNOWN = ["evaluation.constant.factor=0.7"]  # without a search for it
#: What makes each job small; everything else is as the page says.
SMALL = {
    "collect.py": [*FEW, *PAIRS],
    "train.py": [*FEW, *PAIRS, *TRAINING, *QUIET, *KNOWN, "logger=csv"],
    "evaluate.py": [*FEW, *KNOWN, "logger=csv"],
    "generate.py": ["device=cpu", "pipeline.steps=2"],
}


def is_from_file(command, option):
    """Whether the option is of prompts that are drawn, but the command reads a file of them."""
    return option.startswith("prompts.count=") and "prompts=file" in command.arguments


@pytest.fixture
def follow(tmp_path, monkeypatch, capsys):
    """Writes a page's files into an empty folder and runs its commands there; returns that folder.

    `changes` gives further overrides for a command.
    """

    def run(page, changes=lambda command: []):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        for name, content in written_files(ROOT / "docs" / page).items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content, "utf-8")
        for command in shell_commands(ROOT / "docs" / page):
            if path := command.environment.get("PYTHONPATH"):
                monkeypatch.syspath_prepend(tmp_path / path)
            small = [option for option in SMALL[command.program] if not is_from_file(command, option)]
            arguments = [*command.arguments, *small, *changes(command)]
            monkeypatch.setattr(sys, "argv", [str(ROOT / command.program), *arguments])
            try:
                runpy.run_path(str(ROOT / command.program), run_name="__main__")
            except SystemExit as end:
                pytest.fail(f"{capsys.readouterr().err.splitlines()[-1]} ({end}): {command.text}")
        return tmp_path

    return run


def evaluations(folder):
    """results.json of every evaluation job, the oldest first."""
    found = sorted(folder.glob("outputs/evaluate/*/results.json"), key=lambda path: path.stat().st_mtime)
    return [json.loads(path.read_text()) for path in found]


def test_an_objective(follow):
    folder = follow("add_objective.md")
    run = folder / "outputs/train/vividness"
    facts = json.loads((run / "run.json").read_text())
    assert facts["monitor"] == "val/vividness"
    with next(run.glob("csv/*/metrics.csv")).open() as file:
        logged = {name for row in csv.DictReader(file) for name, value in row.items() if value}
    assert {"val/vividness", "val/score/strict"} <= logged
    assert (run / "evaluation/results.json").is_file()
    assert not (folder / "outputs/pairs").exists()


def test_a_metric(follow):
    folder = follow("add_metric.md")
    (results,) = evaluations(folder)
    brightness = results["methods"]["standard"]["brightness"]["mean"]
    assert 0 < brightness < 100
    with next(folder.glob("outputs/evaluate/*/results.csv")).open() as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} >= {"standard", "npnet"}
    assert brightness == pytest.approx(sum(float(r["brightness"]) for r in rows if r["method"] == "standard") / 4)
    index = json.loads(next(folder.glob("outputs/pairs/*/index.json")).read_text())
    (shard,) = index["shards"]
    assert 0 < shard["samples"] < 60
    assert shard["samples"] + shard["rejected"] == 60


def test_a_search(follow):
    folder = follow("add_search.md")
    (results,) = evaluations(folder)
    noise = results["noise"]
    assert noise["variance"]["differences"]["search"]["mean"] == pytest.approx(0, abs=1e-3)
    assert noise["move"]["methods"]["search"]["mean"] > 1e-4
    index = json.loads((folder / "outputs/pairs/shapes-contrast/index.json").read_text())
    assert index["config"]["search"] == {"_target_": "contrast.Contrast", "steps": 2, "strength": 2.0}
    assert list(folder.glob("outputs/train/*/npnet/best/config.json"))


def test_a_variant(follow):
    folder = follow("add_variant.md")
    saved = {path.parts[-4]: json.loads(path.read_text()) for path in folder.glob("outputs/train/*/npnet/best/*.json")}
    film = saved.pop("film")
    assert (film["_class_name"], film["width"]) == ("FiLM", 32)
    ((_, convnext),) = saved.items()
    assert (convnext["backbone"], convnext["svd"]) == ("convnext_atto", False)
    alone, both = evaluations(folder)
    assert {"npnet", "shuffled"} <= alone["methods"].keys()
    assert {"npnet", "film"} <= both["methods"].keys()
    assert list(folder.glob("outputs/generate/*/golden/*.png"))


@pytest.fixture
def tiny_pixart(tmp_path):
    """Folder of a PixArtSigmaPipeline with random weights: 32 x 32 pixels, 4 x 8 x 8 latents."""
    from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, PixArtSigmaPipeline, PixArtTransformer2DModel
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    torch.manual_seed(0)
    tokenizer = T5Tokenizer()
    transformer = PixArtTransformer2DModel(
        sample_size=8,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        cross_attention_dim=16,
        caption_channels=32,
    )
    text = T5Config(vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    vae = AutoencoderKL(
        block_out_channels=[8] * 4,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        norm_num_groups=4,
    )
    pipe = PixArtSigmaPipeline(tokenizer, T5EncoderModel(text), vae, transformer, DPMSolverMultistepScheduler())
    pipe.save_pretrained(tmp_path / "tiny_pixart")
    return tmp_path / "tiny_pixart"


def test_a_pipeline(follow, tiny_sdxl, tiny_pixart, tmp_path):
    (tmp_path / "prompts.csv").write_text("\n".join(["caption", *(f"{n} red circles" for n in range(60))]))
    NPNet((4, 8, 8), (16, 128), svd=False, backbone=None).save_pretrained(tmp_path / "npnet")
    size = ["pipeline.height=32", "pipeline.width=32", "pipeline.pooled_shape=null", "pipeline.model.variant=null"]

    def tiny(command):
        if "pipeline=my_sdxl" in command.arguments:
            fitting = [
                "pipeline.latent_shape=[4,8,8]",
                "pipeline.embeds_shape=[16,128]",
                f"npnet={tmp_path}/npnet",
            ]
            return [*size, *fitting, f"pipeline.model.source={tiny_sdxl}"]
        found = [*size, "pipeline.embeds_shape=[300,32]", f"pipeline.model.source={tiny_pixart}"]
        if command.program == "collect.py":
            return [*found, "metric=shapes", "collection.select_by=null"]
        return [*found, "model=svd_unet"]

    follow("add_pipeline.md", tiny)
    assert list(tmp_path.glob("outputs/generate/*/golden/*.png"))
    assert list(tmp_path.glob("outputs/train/*/npnet/best/config.json"))

    from diffusers import DPMSolverMultistepScheduler, PixArtSigmaPipeline
    from pixart import PixArtPipeline

    from golden_noise.noise import draw_noise

    plain = PixArtSigmaPipeline.from_pretrained(tiny_pixart)
    settings = {"timestep_spacing": "leading"}
    plain.scheduler = DPMSolverMultistepScheduler.from_config(plain.scheduler.config, **settings)
    ours = PixArtPipeline.load(
        str(tiny_pixart),
        device="cpu",
        scheduler={"name": "DPMSolverMultistepScheduler", **settings},
        **{"height": 32, "width": 32, "steps": 3, "guidance": 4.5},
    )
    prompts, noise = ["a red circle", "two crosses"], draw_noise([0, 1], ours.latent_shape)
    call = {"num_inference_steps": 3, "guidance_scale": 4.5, "height": 32, "width": 32, "output_type": "pt"}
    expected = plain(prompts, latents=noise, use_resolution_binning=False, clean_caption=False, **call).images
    embedding = ours.encode(prompts)
    assert torch.equal(ours.sample(embedding, noise), expected)
    start, following = ours.schedule.timesteps(3)[:2].tolist()
    prediction = ours.predict(noise, start, embedding, 4.5)
    below = ours.schedule.move(noise, prediction, start, following)
    torch.testing.assert_close(ours.schedule.move(below, prediction, following, start), noise, atol=1e-5, rtol=0)
