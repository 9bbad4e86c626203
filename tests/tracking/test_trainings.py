"""Trainings with all loggers at once: what they hold is what the run's folder holds."""

import csv
import json

import pytest
from PIL import Image, ImageChops

from golden_noise.collecting.job import collect_job
from golden_noise.collecting.report import report_pairs
from golden_noise.evaluation.job import evaluate_job
from golden_noise.training.job import train
from tests.forked import run_script
from tests.jobs import SMALL_TRAINING

from .readers import READERS

LOCAL = ("tensorboard", "mlflow", "trackio")
ALL = "logger=[csv,tensorboard,mlflow,trackio]"
SMALL = [*SMALL_TRAINING, "prompts.count=60", "pipeline.steps=2", "collection.shard_size=30"]


@pytest.fixture
def read(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/outputs/mlflow/mlflow.db")
    return lambda logger, folder="run": READERS[logger](tmp_path / folder, tmp_path.name)


def projects(tmp_path):
    return [f"logger.mlflow.experiment_name={tmp_path.name}", f"logger.trackio.project={tmp_path.name}"]


def test_collections_and_evaluations_are_reported_too(compose_job, tmp_path, read):
    small = ["prompts.count=4", "pipeline.steps=2", "~metric.reward", ALL, *projects(tmp_path)]
    for _ in range(2):  # the second finds all done, and reports to the same run
        config = compose_job("collect", *small, f"data_dir={tmp_path}/collected")
        collect_job(config)
        report_pairs(config)
    evaluate_job(
        compose_job("evaluate", *small, "evaluation.methods=[standard,search]", f"folder={tmp_path}/evaluated")
    )
    means = json.loads((tmp_path / "evaluated/results.json").read_text())["methods"]["search"]
    for logger in LOCAL:
        assert read(logger, "collected").metrics["pairs/accepted"][-1][1] == 4
        found = read(logger, "evaluated")
        ((_, mean),) = found.metrics["eval/soft/search"]
        assert mean == pytest.approx(means["soft"]["mean"])
        assert len(found.rows) == 4
        if logger != "tensorboard":
            assert len(found.names) == 2


@pytest.mark.slow
def test_an_evaluated_and_resumed_training(compose_job, tmp_path, read):
    few = ["~metric.reward", "evaluation.prompts.count=3", "evaluation.methods=[standard,npnet]"]
    for length in (1, 2):
        options = [ALL, *projects(tmp_path), f"recipe.epochs={length}", "sample_every_n_epochs=1", "evaluate=true"]
        train(compose_job("train", *SMALL, *options, *few))
    record = json.loads((tmp_path / "run/run.json").read_text())
    results = json.loads((tmp_path / "run/evaluation/results.json").read_text())
    items = results["methods"]["npnet"]["strict"]["mean"]
    with (tmp_path / "run/evaluation/results.csv").open() as file:
        prompts = [row["prompt"] for row in csv.DictReader(file) if row["method"] == "npnet"]
    losses = read("csv").metrics["train/loss"]
    assert [step for step, _ in losses] == list(range(record["steps"]))
    for logger in LOCAL:
        found = read(logger)
        assert len(found.names) == 1
        assert found.metrics["train/loss"] == [(step, pytest.approx(value)) for step, value in losses]
        explained = found.metrics["val/explained"]
        assert max(value for _, value in explained) == pytest.approx(record["explained"], rel=1e-6)
        assert found.metrics["eval/strict/npnet"][-1][1] == items
        assert found.metrics["run/parameters"][-1][1] == record["parameters"]
        assert [step for step, _ in found.grids] == [step for step, _ in explained]
        for epoch, (_, grid) in enumerate(found.grids):
            with Image.open(tmp_path / f"run/samples/epoch={epoch:04d}.png") as drawn:
                assert ImageChops.difference(grid, drawn.convert("RGB")).getbbox() is None
        assert [row[found.columns.index("prompt")] for row in found.rows] == prompts


@pytest.mark.slow
def test_a_sweep_of_two_at_a_time_on_two_ranks_each(tiny_sdxl, tmp_path, read):
    """Both jobs find no store and make it; the second ranks log nothing."""
    places = [f"paths.outputs={tmp_path}/outputs", f"data_dir={tmp_path}/pairs", "name=study", "device=cpu"]
    quick = ["recipe=shapes", "recipe.epochs=2", "collection.select_by=null", "sample_every_n_epochs=0"]
    model = [f"pipeline.model.source={tiny_sdxl}", "evaluate=false", "trainer=ddp_cpu"]
    sweep = ["-m", "seed=1,2", "hydra.launcher.n_jobs=2"]
    arguments = ["train.py", *sweep, *SMALL, *places, *quick, *model, ALL, *projects(tmp_path)]
    done = run_script(tmp_path, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = [f"outputs/train/study/seed={seed}" for seed in (1, 2)]
    for logger in ("mlflow", "trackio"):
        found = read(logger)
        assert sorted(name.removeprefix("train/") for name in found.names) == ["study/seed=1", "study/seed=2"]
        assert found.groups == {"study"}
        assert len(found.metrics["val/explained"]) == 4
    for run in runs:
        found = read("tensorboard", run)
        steps = [step for step, _ in found.metrics["train/loss"]]
        assert len(steps) == len({*steps}) > 1  # a second rank would log every step again
        assert len(found.metrics["val/explained"]) == 2
