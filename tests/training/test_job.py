"""The train job, on pairs of a random pipeline: alone, killed and resumed, and on two ranks."""

import csv
import json
import os
import random
import re
import signal
import time
from itertools import chain

import pytest
import torch
from safetensors.torch import load_file

from golden_noise.cli.validation import check
from golden_noise.collecting.job import collect
from golden_noise.errors import UserError
from golden_noise.generation.job import generate
from golden_noise.npnet import LowFrequencyNPNet, NPNet
from golden_noise.pipelines.sdxl import SDXLPipeline
from golden_noise.training.job import train
from tests.forked import run_script, start_script
from tests.jobs import SMALL_TRAINING

KINDS = ("best", "last")
CHEAP = ["recipe=shapes", "collection.select_by=null"]
PAIRS = ["prompts.count=100", "collection.shard_size=50"]
SMALL = [*SMALL_TRAINING, *PAIRS, "recipe.epochs=2"]


def test_it_collects_trains_and_evaluates(compose_job, tmp_path):
    few = ["evaluation.prompts.count=6", "evaluation.batch_size=6", "pipeline.steps=2", "~metric.reward"]
    train(compose_job("train", *SMALL, "evaluate=true", "sample_every_n_epochs=1", *few))
    run = tmp_path / "run"
    assert NPNet.from_pretrained(run / "npnet/best").latent_shape == (4, 8, 8)
    for name in (
        "config.yaml",
        "npnet/best/training.yaml",
        "npnet/best/README.md",
        "npnet/last/config.json",
        "samples/epoch=0000.png",
    ):
        assert (run / name).is_file(), name
    assert str(tmp_path.cwd()) not in (run / "npnet/best/training.yaml").read_text()
    for name in ("results.json", "results.csv", "report.html", "images/npnet/000005.png"):
        assert (run / "evaluation" / name).is_file(), name
    assert "Means over 6 images each" in (run / "npnet/best/README.md").read_text()
    rows = list(csv.DictReader((run / "csv/version_0/metrics.csv").open()))
    assert {"train/loss", "val/loss", "val/explained", "lr-AdamW/pg1", "train/pairs_per_second"} <= rows[0].keys()


def test_another_pipeline_draws_and_learns_from_its_own_prompts(compose_job, tmp_path, monkeypatch):
    """Never the miniature's captions: grids show held-out prompts of the pairs, others choose the constant."""
    texts = [f"a photo of {i} cats" for i in range(40)]
    (tmp_path / "learnt.txt").write_text("\n".join(texts))
    (tmp_path / "held_out.txt").write_text("\n".join(f"a drawing of {i} dogs" for i in range(12)))
    learnt = ["pipeline.bundled=false", "pipeline.name=other", "prompts=file", f"prompts.path={tmp_path}/learnt.txt"]
    collect(compose_job("collect", *learnt))
    encoded = []
    encode = SDXLPipeline.encode
    monkeypatch.setattr(SDXLPipeline, "encode", lambda self, prompts: encoded.append(prompts) or encode(self, prompts))
    options = [*SMALL_TRAINING, *learnt[:2], "recipe.epochs=1", "recipe.batch_size=8", "pipeline.steps=2"]
    train(compose_job("train", *options, "sample_every_n_epochs=1"))
    grid = encoded[0]
    assert len(grid) == 8 and {*grid} < {*texts}
    held_out = ["prompts@evaluation.prompts=file", f"evaluation.prompts.path={tmp_path}/held_out.txt"]
    judged = ["evaluate=true", "~metric.strict", "~metric.soft", "evaluation.methods=[standard,npnet,constant]"]
    train(compose_job("train", *options, *held_out, *judged))
    results = json.loads((tmp_path / "run/evaluation/results.json").read_text())
    assert results["constant"]["prompts"] == 10
    asked = {text for prompts in encoded if prompts != grid for text in prompts}
    assert len(asked & {*texts}) == 10 and not asked & {*grid}
    assert asked - {*texts} == {f"a drawing of {i} dogs" for i in range(12)}


def test_stored_and_encoded_embeddings_train_alike(compose_job, tmp_path):
    """Apart from the float16 that they are stored in."""
    losses = []
    for embeddings, store in (("stored", "true"), ("encode", "false")):
        places = [
            f"data_dir={tmp_path}/{embeddings}",
            f"folder={tmp_path}/{embeddings}-run",
            f"data.embeddings={embeddings}",
        ]
        train(compose_job("train", *SMALL, "recipe.epochs=1", *places, f"collection.store_embeds={store}"))
        rows = csv.DictReader((tmp_path / f"{embeddings}-run/csv/version_0/metrics.csv").open())
        losses.append([float(row["train/loss"]) for row in rows if row["train/loss"]])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3) and len(losses[0]) > 3
    sizes = [sum(path.stat().st_size for path in (tmp_path / name).glob("*.tar")) for name in ("stored", "encode")]
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize("rank", [4, pytest.param(None, marks=pytest.mark.slow)])
def test_the_denoiser_itself_learns_from_full_inversion(compose_job, tmp_path, rank):
    """Collect, train, evaluate, and generate from what was saved."""
    choices = ["model=denoiser_lora", f"model.npnet.rank={'null' if rank is None else rank}", "search=full_inversion"]
    few = ["prompts.count=40", "recipe.batch_size=8", "recipe.epochs=1", "pipeline.steps=2"]
    judged = ["evaluation.prompts.count=3", "evaluation.batch_size=3", "~metric.reward"]
    options = [*SMALL, *choices, *few, *judged, "evaluate=true", "sample_every_n_epochs=1"]
    train(compose_job("train", *options))
    run = tmp_path / "run"
    assert (run / "samples/epoch=0000.png").is_file()
    assert (run / "evaluation/images/npnet/000002.png").is_file()
    weights = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(name.startswith("npnet.trained.") for name in weights)
    assert any(weight.abs().max() > 0 for name, weight in weights.items() if "lora_B" in name or rank is None)

    generate(compose_job("generate", "prompt=a red circle", "pipeline.steps=2", f"npnet={run}/npnet/best"))
    images = [next((run / name).glob("*.png")).read_bytes() for name in ("standard", "golden")]
    assert images[0] != images[1]


def test_low_frequencies_are_learned_resumed_judged_and_drawn(compose_job, tmp_path):
    judged = ["evaluation.prompts.count=3", "evaluation.batch_size=3", "~metric.reward", "pipeline.steps=2"]
    options = [*SMALL, "model=low_frequency", "model.npnet.modes=3", "prompts.count=40", "recipe.batch_size=8", *judged]
    train(compose_job("train", *options, "recipe.epochs=1"))
    train(compose_job("train", *options, "recipe.epochs=2", "evaluate=true", "sample_every_n_epochs=1"))
    run = tmp_path / "run"
    npnet = LowFrequencyNPNet.from_pretrained(run / "npnet/best")
    assert npnet.modes == 3 and npnet.output.weight.any()
    facts = json.loads((run / "run.json").read_text())
    assert facts["epochs"] == 2 and facts["parameters"] == sum(value.numel() for value in npnet.parameters())
    assert f"| parameters | {facts['parameters']:,} |" in (run / "npnet/best/README.md").read_text()
    assert (run / "samples/epoch=0001.png").is_file()
    assert (run / "evaluation/images/npnet/000002.png").is_file()

    drawn = ["prompt=a red circle", "pipeline.steps=2", f"npnet={run}"]
    for height, rows in ((32, 8), (48, 12)):
        folder = tmp_path / f"drawn{height}"
        size = [f"pipeline.height={height}", f"pipeline.latent_shape=[4,{rows},8]", f"folder={folder}"]
        generate(compose_job("generate", *drawn, *size))
        images = [next((folder / name).glob("*.png")).read_bytes() for name in ("standard", "golden")]
        assert images[0] != images[1]


def test_a_denoiser_is_not_trained_in_float16(compose_job):
    options = ["model=denoiser_lora", "pipeline.model.dtype=float16", "prompts.count=20"]
    with pytest.raises(UserError, match=r"pipeline\.model\.dtype=bfloat16"):
        train(compose_job("train", *SMALL, *options))


def test_another_pipeline_without_pairs_names_the_command(compose_job):
    with pytest.raises(UserError, match=r"python collect.py pipeline=sdxl"):
        train(compose_job("train", "pipeline.bundled=false", "pipeline.name=sdxl"))


def test_pairs_of_another_pipeline_are_refused(compose_job):
    train(compose_job("train", *SMALL, "recipe.epochs=1"))
    with pytest.raises(UserError, match=r"pipeline\.name=shapes"):
        train(compose_job("train", *SMALL, "pipeline.bundled=false", "pipeline.name=other"))


def test_pairs_of_other_prompts_are_refused_before_a_run_is_logged(compose_job, tmp_path):
    collect(compose_job("collect", "prompts.count=50", "collection.shard_size=50"))
    with pytest.raises(UserError, match=r"was made with prompts\.count=50, now prompts\.count=100"):
        train(compose_job("train", *SMALL, "logger=[csv,wandb]"))
    assert not list(tmp_path.rglob("wandb")) and not list(tmp_path.rglob("csv"))


@pytest.mark.parametrize(
    "options, message",
    [
        (["recipe.batch_size=500"], r"too few for one training batch of 500"),
        (["data.val_fraction=0.001"], "too few for one validation batch"),
    ],
)
def test_pairs_that_do_not_fit_are_refused_before_a_run_is_logged(compose_job, tmp_path, options, message):
    collect(compose_job("collect", *PAIRS))
    with pytest.raises(UserError, match=message):
        train(compose_job("train", *SMALL, *options, "logger=[csv,wandb]"))
    assert not list(tmp_path.rglob("wandb")) and not list(tmp_path.rglob("csv"))


def test_an_evaluation_that_cannot_follow_is_refused_before_the_training(compose_job, tmp_path):
    with pytest.raises(UserError, match="unknown method 'nonsense'"):
        check(compose_job("train", *SMALL, "evaluate=true", "evaluation.methods=[standard,nonsense]"))
    assert not (tmp_path / "pairs").exists()


def test_a_training_that_nothing_would_save_is_refused_before_it(compose_job, tmp_path):
    with pytest.raises(UserError, match=r"callbacks\.save_npnet is missing"):
        train(compose_job("train", *SMALL, "~callbacks.save_npnet"))
    assert not (tmp_path / "pairs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_no_gpu_is_said_before_any_work(compose_job, tmp_path):
    with pytest.raises(
        UserError, match=r"trainer\.accelerator=gpu, but torch finds no GPU here: add trainer\.accelera"
    ):
        train(compose_job("train", *SMALL, "trainer=ddp"))
    assert not (tmp_path / "pairs").exists()


def test_no_epoch_leaves_no_npnet(compose_job):
    with pytest.raises(UserError, match=r"nothing was trained.*trainer\.max_epochs=0"):
        train(compose_job("train", *SMALL, "trainer.max_epochs=0"))


@pytest.mark.parametrize(
    "option", ["+trainer.max_steps=3", "+trainer.check_val_every_n_epoch=5", "+trainer.limit_val_batches=0"]
)
def test_the_last_is_the_best_of_a_training_without_validation(compose_job, tmp_path, option):
    train(compose_job("train", *SMALL, "pipeline.steps=2", option))
    best, last = (load_file(tmp_path / f"run/npnet/{kind}/diffusion_pytorch_model.safetensors") for kind in KINDS)
    assert all(torch.equal(value, last[name]) for name, value in best.items())
    assert (tmp_path / "run/run.json").is_file()


@pytest.mark.slow  # tests/cluster has one that restarts, too
def test_torchrun_trains_on_as_many_processes_as_it_starts(tiny_sdxl, tmp_path):
    """As documented: nothing but the trainer is said, and neither are loggers needed."""
    script, *arguments = command(tiny_sdxl, tmp_path, "trainer=ddp", "trainer.accelerator=cpu")
    arguments = ["logger=null" if argument == "logger=csv" else argument for argument in arguments]
    done = run_script(tmp_path, "-m", "torch.distributed.run", "--nproc-per-node=2", script, *arguments)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "outputs/train/run"
    assert json.loads((run / "run.json").read_text())["ranks"] == 2
    lines = (run / "log.txt").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in lines)
    assert [line[20:] for line in lines if "NPNet: " in line] == [f"NPNet: {run / 'npnet/best'}"]  # of one rank only
    assert "logger=null" in lines[0]  # the command as it was given
    assert not any("it/s" in line for line in lines)


def command(tiny_sdxl, folder, *overrides):
    places = [
        f"paths.outputs={folder}/outputs",
        f"data_dir={folder}/pairs",
        "name=run",
        "logger=csv",
        "device=cpu",
    ]
    quick = [
        "recipe=shapes",
        "collection.select_by=null",
        "evaluate=false",
        "sample_every_n_epochs=0",
        f"pipeline.model.source={tiny_sdxl}",
    ]
    return ["train.py", *CHEAP, *SMALL, *places, *quick, *overrides]


def last_weights(folder):
    return torch.load(folder / "outputs/train/run/checkpoints/last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.slow  # tests/cluster has a faster one
def test_a_training_killed_at_any_moment_goes_on_to_the_same_weights(tiny_sdxl, compose_job, tmp_path):
    """It writes a checkpoint after every batch, so that most kills fall into one."""
    options = ["prompts.count=200", "recipe.epochs=3", "callbacks.last.minutes=0"]
    arguments = command(tiny_sdxl, tmp_path, *options)
    victim = start_script(tmp_path, *arguments)
    checkpoint = tmp_path / "outputs/train/run/checkpoints/last.ckpt"
    deadline = time.monotonic() + 200
    while not checkpoint.exists() and victim.exitcode is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(random.random() / 20)
    os.killpg(victim.pid, signal.SIGKILL)  # its data workers would hold its lock for some seconds
    victim.join()
    steps = torch.load(checkpoint, weights_only=True)["global_step"]
    assert run_script(tmp_path, *arguments).returncode == 0
    resumed = last_weights(tmp_path)
    logs = (tmp_path / "outputs/train/run/csv").glob("version_*/metrics.csv")
    rows = list(csv.DictReader(max(logs, key=lambda path: path.stat().st_mtime_ns).open()))
    assert min(int(row["step"]) for row in rows if row["train/loss"]) == steps
    train(compose_job("train", *SMALL, *options[:2]))
    whole = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert whole.keys() == resumed.keys()
    assert all(torch.allclose(value, resumed[name], rtol=1e-3, atol=1e-5) for name, value in whole.items())


@pytest.mark.long
def test_two_ranks_end_with_equal_weights_and_log_once(tiny_sdxl, tmp_path, read_offline_run, monkeypatch):
    script = tmp_path / "compare_ranks.py"
    script.write_text(COMPARE_RANKS)
    arguments = command(
        tiny_sdxl,
        tmp_path,
        "trainer=ddp_cpu",
        "logger=[csv,wandb]",
        "+callbacks.compare._target_=compare_ranks.CompareRanks",
    )
    monkeypatch.delenv("WANDB_MODE", raising=False)  # offline is the default
    environment = {"PYTHONPATH": str(tmp_path), "COMPARE_FOLDER": str(tmp_path)}
    done = run_script(tmp_path, *arguments, environment=environment)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "rank0").read_text() == (tmp_path / "rank1").read_text()
    assert len(list((tmp_path / "outputs").rglob("metrics.csv"))) == 1
    (log,) = (tmp_path / "outputs").rglob("*.wandb")
    history = [row for name, row in read_offline_run(log) if name == "history"]
    assert {"train/loss", "val/explained", "lr-AdamW/pg1", "train/pairs_per_second"} <= {*chain(*history)}
    steps = [row["trainer/global_step"] for row in history if "train/loss" in row]
    assert len(steps) == len(set(steps)) > 1  # a second rank would log every step again
    assert NPNet.from_pretrained(tmp_path / "outputs/train/run/npnet/best") is not None


COMPARE_RANKS = """
import hashlib, os, pathlib
from lightning import Callback


class CompareRanks(Callback):
    def on_train_end(self, trainer, module):
        assert trainer.world_size == 2
        digest = hashlib.sha256()
        for value in module.npnet.state_dict().values():
            digest.update(value.detach().numpy().tobytes())
        pathlib.Path(os.environ["COMPARE_FOLDER"], f"rank{trainer.global_rank}").write_text(digest.hexdigest())
"""
