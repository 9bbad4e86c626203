"""Tables and pages of many runs, from folders as train.py leaves them."""

import csv
import json

import pytest
import yaml

from golden_noise.errors import UserError
from golden_noise.sweeps.commands import main
from golden_noise.sweeps.runs import read_runs, varied
from golden_noise.sweeps.summary import summarize
from golden_noise.tracking import record


@pytest.fixture
def add_run(tmp_path):
    """Makes a run folder: overrides, val/explained by epoch, and perhaps what a finished one has."""

    def add(name, overrides, curve, gain=None, finished=True):
        folder = tmp_path / "study" / name
        (folder / "csv/version_0").mkdir(parents=True)
        (folder / ".hydra").mkdir()
        (folder / ".hydra/overrides.yaml").write_text(yaml.safe_dump([*overrides, f"name=study/{name}"]))
        (folder / "config.yaml").write_text(yaml.safe_dump({"seed": 0, "model": {"npnet": {"svd": True}}}))
        rows = [f"{epoch},{value}," for epoch, value in enumerate(curve)]
        (folder / "csv/version_0/metrics.csv").write_text(
            "\n".join(["epoch,val/explained,train/loss", *rows, "9,,.5\n"])
        )
        if gain is not None:
            (folder / "evaluation").mkdir()
            comparison = {"metric": "strict", "a": "standard", "b": "npnet", "task": "all", "n": 50}
            comparison |= {"difference": gain, "ci95": [gain - 0.01, gain + 0.01]}
            results = {"methods": {"standard": {"strict": {}}}, "comparisons": [comparison]}
            (folder / "evaluation/results.json").write_text(json.dumps(results))
        if finished:
            described = {"overrides": overrides, "commit": "abc", "explained": max(curve), "parameters": 1000}
            described |= {"forward_ms": 1.5, "forward_batch": 8, "seconds": 10.0, "epochs": len(curve)}
            record.write(folder, described | {"device": "cpu", "threads": 1, "ranks": 1})
        return folder

    return add


def table(folder):
    with (folder / "summary.csv").open() as file:
        return list(csv.DictReader(file))


def test_runs_are_grouped_over_seeds(add_run, tmp_path, capsys):
    for model, best in (("unet", 0.5), ("vit", 0.3)):
        for seed in (1, 2):
            curve = [0.1, best + 0.1 * seed, best]
            add_run(f"{model}{seed}", [f"model={model}", f"seed={seed}", "evaluate=true"], curve, gain=0.01 * seed)
    main(["summarize", str(tmp_path / "study")])
    rows = table(tmp_path / "study")
    assert [(row["model"], row["seed"]) for row in rows] == [("unet", "1"), ("unet", "2"), ("vit", "1"), ("vit", "2")]
    assert "evaluate" not in rows[0]
    assert [float(row["explained"]) for row in rows] == pytest.approx([0.6, 0.7, 0.4, 0.5])
    assert (rows[1]["metric"], rows[1]["gain"], rows[1]["gain_low"], rows[1]["pairs"]) == (
        "strict",
        "0.02",
        "0.01",
        "50",
    )
    assert (rows[0]["parameters"], rows[0]["forward_ms"], rows[0]["commit"]) == ("1000", "1.5", "abc")
    printed = capsys.readouterr().out
    assert "0.650 ± 0.071" in printed  # mean and standard deviation of .6 and .7
    assert "+0.015 ± 0.007" in printed


def test_the_page_needs_no_network_and_escapes_what_comes_from_outside(add_run, tmp_path):
    add_run("a", ["model=<script>", "seed=1"], [0.1, 0.2], gain=0.1)
    add_run("b", ["model=unet", "seed=1"], [0.3], finished=False)
    summarize(tmp_path / "study")
    page = (tmp_path / "study/summary.html").read_text()
    assert page.count("<polyline") == 2
    assert "&lt;script&gt;" in page and "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "prefers-color-scheme: dark" in page
    assert "1 of 2 trainings finished" in page


def test_unfinished_and_lone_runs_have_rows(add_run, tmp_path):
    add_run("only", ["seed=3"], [0.1, 0.4], finished=False)
    summarize(tmp_path / "study")
    (row,) = table(tmp_path / "study")
    assert (row["state"], row["explained"], row["gain"], row["seconds"]) == ("unfinished", "0.4", "", "")


def test_an_option_that_only_some_runs_state_is_read_from_the_config_of_the_others(add_run):
    add_run("a", ["model.npnet.svd=false"], [0.1])
    folder = add_run("b", [], [0.1])
    runs = read_runs(folder.parent)
    assert varied(runs) == ["model.npnet.svd"]
    assert [run.setting("model.npnet.svd") for run in runs] == ["false", "true"]


def test_curves_go_over_restarts(add_run):
    folder = add_run("a", [], [0.1, 0.2, 0.3])
    (folder / "csv/version_1").mkdir()
    (folder / "csv/version_1/metrics.csv").write_text("epoch,val/explained\n2,0.5\n3,0.6\n")
    (run,) = read_runs(folder)
    assert run.curve("val/explained") == [(1, 0.1), (2, 0.2), (3, 0.5), (4, 0.6)]


def test_no_trainings_are_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["summarize", str(tmp_path)])
    assert (
        capsys.readouterr().err
        == f"error: no trainings in {tmp_path}: give the folder of a sweep, or one that holds trainings\n"
    )
    with pytest.raises(UserError, match="no trainings"):
        read_runs(tmp_path)
