"""Multiruns of the real train.py: DDP, failures, restarts, and several processes at once."""

import csv
import json
import sys
import time

import pytest
from omegaconf import OmegaConf

from golden_noise.errors import UserError
from golden_noise.sweeps import names  # noqa: F401 - its resolvers
from golden_noise.sweeps.jobs import Job, held
from golden_noise.sweeps.launcher import ProcessLauncher
from golden_noise.tracking import record
from tests.forked import run_script, start_script


@pytest.fixture
def start(small, tmp_path):
    """Starts a sweep of train.py."""

    def script(*overrides):
        model = [] if any(o.startswith("model=") for o in overrides) else ["model=svd_unet+unet"]
        return start_script(tmp_path, "train.py", "-m", *small, *model, *overrides)

    return script


@pytest.fixture
def ended(tmp_path):
    """Waits for the end of a sweep: its exit code, and what it said."""

    def wait(process):
        process.join(280)
        assert process.exitcode is not None
        return process.exitcode, "".join((tmp_path / name).read_text() for name in ("stdout", "stderr"))

    return wait


@pytest.mark.slow
def test_every_rank_of_every_job_has_the_jobs_own_settings(start, ended, tmp_path, monkeypatch):
    """The pitfall: a second rank that starts with -m runs the sweep again, and trains with other settings."""
    (tmp_path / "note_ranks.py").write_text(NOTE_RANKS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    note = "+callbacks.note._target_=note_ranks.NoteRanks"
    code, output = ended(start("name=study", "trainer=ddp_cpu", "model.optimizer.lr=0.001,0.002", "seed=3", note))
    assert code == 0, output
    study = tmp_path / "outputs/train/study"
    for rate in ("0.001", "0.002"):
        job = study / f"model.optimizer.lr={rate}"
        notes = [json.loads((job / f"rank{rank}.json").read_text()) for rank in (0, 1)]
        assert [note["world_size"] for note in notes] == [2, 2]
        assert [note["lr"] for note in notes] == [float(rate)] * 2
        assert [note["seed"] for note in notes] == [3, 3]
        assert notes[0]["weights"] == notes[1]["weights"]
        assert json.loads((job / "run.json").read_text())["ranks"] == 2
    assert len(list(tmp_path.rglob("rank*.json"))) == 4
    assert len(list(tmp_path.rglob("metrics.csv"))) == 2
    with (study / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["model.optimizer.lr"], row["ranks"], row["state"]) for row in rows] == [
        ("0.001", "2", "finished"),
        ("0.002", "2", "finished"),
    ]


NOTE_RANKS = """
import hashlib, json, pathlib
from lightning import Callback


class NoteRanks(Callback):
    def on_fit_end(self, trainer, module):
        from hydra.core.hydra_config import HydraConfig
        digest = hashlib.sha256()
        for value in module.npnet.state_dict().values():
            digest.update(value.detach().numpy().tobytes())
        note = {
            "world_size": trainer.world_size,
            "lr": module.optimizer.keywords["lr"],
            "seed": int(next(o for o in HydraConfig.get().overrides.task if o.startswith("seed=")).split("=")[1]),
            "weights": digest.hexdigest(),
        }
        folder = pathlib.Path(HydraConfig.get().runtime.output_dir)
        (folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(note))
"""


@pytest.mark.long
def test_a_failed_job_loses_no_other_and_a_restart_does_what_is_missing(start, ended, tmp_path):
    study = tmp_path / "outputs/train/study"
    backbones = "recipe.backbone=nonsense,vit_tiny_patch16_224"
    code, output = ended(start("name=study", backbones, "seed=1"))
    assert code == 2
    assert "error: job 1, recipe.backbone=nonsense, failed with exit code" in output
    assert "error: 1 of 2 jobs failed" in output
    (finished,) = study.glob("*/run.json")
    before = finished.stat().st_mtime_ns
    assert finished.parent.name == "recipe.backbone=vit_tiny_patch16_224"
    assert json.loads(finished.read_text())["explained"] is not None

    one = "recipe.backbone=choice(vit_tiny_patch16_224)"
    code, output = ended(start("name=study", one, "seed=1"))
    assert code == 0
    assert "job 1, recipe.backbone=vit_tiny_patch16_224: finished already" in output
    assert finished.stat().st_mtime_ns == before

    code, output = ended(start("name=study", one, "seed=1", "trainer.max_epochs=3"))
    assert code == 2
    assert "holds a finished run of other settings (trainer.max_epochs=3)" in output


@pytest.mark.slow
def test_a_killed_sweep_goes_on_where_it_was_and_two_share_the_work(start, ended, tmp_path):
    """Killed in the first job: the job goes on by itself, and another process takes the other one meanwhile."""
    study = tmp_path / "outputs/train/study"
    options = ("name=study", "seed=1,2", "trainer.max_epochs=30")
    victim = start(*options)
    checkpoint = study / "seed=1/checkpoints/last.ckpt"
    deadline = time.monotonic() + 200
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    victim.kill()
    code, output = ended(start(*options))
    assert code == 0, output
    assert "seed=2" in output
    code, output = ended(start(*options))
    assert code == 0, output
    for seed in (1, 2):
        (log,) = (study / f"seed={seed}").rglob("metrics.csv")
        with log.open() as file:
            epochs = [int(row["epoch"]) for row in csv.DictReader(file) if row["val/explained"]]
        assert epochs == list(range(30))  # each once: no two processes trained in one folder


def named(arguments, task, number=0, params=None):
    """Names that a sweep with this command line and a job with these overrides get."""
    root = {"hydra": {"overrides": {"task": task}, "job": {"num": number}, "sweeper": {"params": params}}}
    config = OmegaConf.create(root | {"folder": "${job_folder:}", "sweep": "${sweep_name:given}"})
    return config.sweep, config.folder


def test_names_say_what_varies(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "model=unet,svd_unet+unet", "seed=1,2", "evaluate=false"])
    name, folder = named(sys.argv, ["model=svd_unet+unet", "seed=2", "evaluate=false"])
    assert folder == "model=svd_unet+unet,seed=2"
    assert name.startswith("sweep-model-seed-")
    assert named(sys.argv, ["model=unet"])[0] == name  # the same for every job
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "evaluate=false", "seed=1,2", "model=unet,svd_unet+unet"])
    assert named(sys.argv, [])[0].rpartition("-")[2] == name.rpartition("-")[2]  # whatever the order
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "name=study", "seed=1,2"])
    assert named(sys.argv, ["name=study", "seed=1"]) == ("given", "seed=1")


def test_names_are_short_and_tell_jobs_apart(monkeypatch):
    paths = ["/a/b", "/a_b", "/a/" + "b" * 300, "/a/" + "b" * 301]
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", f"data_dir={','.join(paths)}"])
    folders = [named(sys.argv, [f"data_dir={path}"])[1] for path in paths]
    assert len(set(folders)) == 4
    assert all(len(folder) < 150 and "/" not in folder for folder in folders)


def test_what_does_not_change_the_jobs_does_not_change_the_sweeps_name(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "seed=1,2"])
    name, _ = named(sys.argv, [])
    sys.argv += ["hydra.launcher.n_jobs=2"]
    assert named(sys.argv, [])[0] == name
    sys.argv += ["evaluate=false"]
    assert named(sys.argv, [])[0] != name


def test_a_folder_is_held_once(tmp_path):
    with held(tmp_path) as first, held(tmp_path) as second:
        assert first is not None
        assert second is None
    with held(tmp_path) as third:
        assert third is not None


@pytest.mark.parametrize("variable", ["TORCHELASTIC_RUN_ID", "SLURM_NTASKS"])
def test_several_processes_do_not_each_run_the_sweep(start, ended, monkeypatch, variable):
    monkeypatch.setenv(variable, "2")
    code, output = ended(start("name=study", "seed=1,2"))
    assert code == 2
    assert "-m under torchrun or in several SLURM tasks" in output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("hydra/launcher=basic", "trainer=ddp_cpu"), "trainer.devices=2 needs hydra/launcher=process, not basic"),
        (("hydra.launcher.n_jobs=0",), "n_jobs=0 must be a positive integer"),
        (("hydra.launcher.halving={min_epochs: 0}",), "min_epochs must be at least 1"),
        (("hydra.launcher.halving={epochs: 1}",), "unexpected keyword argument 'epochs'"),
    ],
)
def test_a_launcher_that_cannot_run_the_jobs_is_one_line(start, ended, options, words):
    code, output = ended(start("name=study", "seed=1", *options))
    assert code == 2
    assert words in output
    assert "Traceback" not in output


def test_other_jobs_run_under_a_sweep_with_the_prompts_as_they_are(tiny_sdxl, tmp_path):
    """The sweep holds the job's folder while the job works in it, and its sweeper escapes blanks."""
    options = ["noise=standard", "pipeline.steps=1", f"pipeline.model.source={tiny_sdxl}", "device=cpu", "name=s"]
    command = ["generate.py", "-m", "prompt=a red circle", f"paths.outputs={tmp_path}", *options]
    done = run_script(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    (metadata,) = tmp_path.rglob("metadata.jsonl")
    assert json.loads(metadata.read_text())["prompt"] == "a red circle"


@pytest.mark.parametrize("overrides", [["seed=1"], ["seed=1", "recipe.lr=2", "a=3"], ["seed=1", "recipe.lr=3"]])
def test_a_finished_run_of_more_fewer_or_other_settings_is_refused(tmp_path, overrides):
    record.write(tmp_path, {"overrides": ["seed=1", "recipe.lr=2"], "explained": 0.5})
    assert Job(0, tmp_path, ["recipe.lr=2", "seed=1"], []).result()
    with pytest.raises(UserError, match="holds a finished run of other settings"):
        Job(0, tmp_path, overrides, []).result()


@pytest.mark.parametrize("wait", [False, True])
def test_only_a_search_waits_for_a_job_of_another_process(tmp_path, wait):
    launcher = ProcessLauncher(wait=wait)
    launcher.config = OmegaConf.create({"hydra": {"job": {"name": "train"}}})
    with held(tmp_path):
        assert (launcher._attempt(Job(0, tmp_path, [], [])) is None) == wait
