"""The files of docs/cluster, on a real SLURM of one node."""

import json
from pathlib import Path

import pytest

from golden_noise.cli.config import job_config
from golden_noise.collecting.job import collect
from tests.training.test_job import COMPARE_RANKS

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]

PAIRS = ["prompts.count=64", "collection.shard_size=8", "collection.select_by=null"]
SMALL = [
    *PAIRS,
    "recipe=shapes",
    "device=cpu",
    "evaluate=false",
    "sample_every_n_epochs=0",
    "recipe.batch_size=4",
    "recipe.backbone_args.embed_dim=16",
    "recipe.backbone_args.depth=1",
    "callbacks.progress.refresh_rate=0",
    "trainer.log_every_n_steps=1",
]


ON_CPU = "trainer.accelerator=cpu"  # trainer=ddp takes GPUs
#: Notes which pairs each run of a job learns from; the first one does not end before its time does.
PACE = """
import json, os, pathlib, time
from lightning import Callback

RUN = os.environ.get("SLURM_RESTART_COUNT", "0")


class Pace(Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        line = json.dumps([trainer.current_epoch, batch_idx, sorted(batch["key"])])
        with open(f"{os.environ['PACE_FOLDER']}/run{RUN}-rank{trainer.global_rank}", "a") as file:
            print(line, file=file)
        if RUN == "0" and trainer.global_step > 10:
            time.sleep(1)
"""


@pytest.fixture(scope="module")
def pairs(slurm, tmp_path_factory) -> Path:
    """Pairs that four jobs of an array have collected."""
    folder = tmp_path_factory.mktemp("collected")
    number = slurm.submit("collect", folder, ["--cpus-per-task=1"], [*PAIRS, "device=cpu", f"data_dir={folder}/pairs"])
    assert slurm.wait(number) == {"COMPLETED"}, said(folder)
    return folder / "pairs"


def said(folder: Path) -> str:
    """What the jobs printed."""
    return "\n".join(f"{path.name}: {path.read_text()}" for path in sorted(folder.glob("*.out")))


def shards(folder: Path) -> dict[str, bytes]:
    """The bytes of all shards, by name."""
    return {path.name: path.read_bytes() for path in folder.glob("*.tar")}


def test_the_jobs_of_an_array_collect_what_one_process_does(pairs, tmp_path):
    logs = [path.read_text() for path in pairs.parent.glob("*.out")]
    assert len(logs) == 4
    collect(job_config("collect", [*PAIRS, "device=cpu", f"data_dir={tmp_path}/pairs"]))
    assert len(shards(pairs)) == 8 and shards(pairs) == shards(tmp_path / "pairs")
    indexes = [json.loads((folder / "index.json").read_text()) for folder in (pairs, tmp_path / "pairs")]
    assert indexes[0] == indexes[1]


def test_two_tasks_train_one_network_in_one_run(slurm, pairs, tmp_path, read_offline_run, monkeypatch):
    (tmp_path / "compare_ranks.py").write_text(COMPARE_RANKS)
    monkeypatch.setenv("COMPARE_FOLDER", str(tmp_path))
    monkeypatch.delenv("WANDB_MODE")  # offline is the default
    options = ["--ntasks-per-node=2", "--gpus-per-node=2", "--cpus-per-task=1", "--job-name=two"]
    extra = ["logger=[csv,wandb]", "+callbacks.compare._target_=compare_ranks.CompareRanks", "recipe.epochs=2"]
    places = [f"paths.outputs={tmp_path}/outputs", f"data_dir={pairs}"]
    number = slurm.submit("train", tmp_path, options, [*SMALL, ON_CPU, *places, *extra], paths=[tmp_path])
    assert slurm.wait(number) == {"COMPLETED"}, said(tmp_path)
    assert (tmp_path / "rank0").read_text() == (tmp_path / "rank1").read_text()
    run = tmp_path / "outputs/train/two"
    assert json.loads((run / "run.json").read_text())["ranks"] == 2
    assert "npnet/best" in said(tmp_path) and "srun" not in said(tmp_path)
    (log,) = run.rglob("*.wandb")
    history = [row for name, row in read_offline_run(log) if name == "history"]
    steps = [row["trainer/global_step"] for row in history if "train/loss" in row]
    assert len(steps) == len(set(steps)) > 1


def test_a_training_whose_time_is_over_is_queued_again_and_goes_on_with_the_next_pair(
    slurm, pairs, tmp_path, monkeypatch
):
    (tmp_path / "pace.py").write_text(PACE)
    monkeypatch.setenv("PACE_FOLDER", str(tmp_path))
    options = ["--ntasks-per-node=2", "--gpus-per-node=2", "--cpus-per-task=1", "--job-name=long"]
    extra = ["logger=[csv,wandb]", "+callbacks.pace._target_=pace.Pace", "recipe.epochs=12"]
    places = [f"paths.outputs={tmp_path}/outputs", f"data_dir={pairs}"]
    number = slurm.submit("train", tmp_path, options, [*SMALL, ON_CPU, *places, *extra], paths=[tmp_path])
    slurm.until(number, lambda: len(rows(tmp_path, 0, 0)) > 10)
    slurm.let_time_run_out(number, 60)
    assert slurm.wait(number) == {"COMPLETED"}, said(tmp_path)
    assert "DUE TO JOB REQUEUE" in said(tmp_path) and "interrupted: resume" in said(tmp_path)
    assert "Traceback" not in said(tmp_path)  # SLURM's SIGTERM has ended W&B's process, too
    for rank in (0, 1):
        first, second = (rows(tmp_path, run, rank) for run in (0, 1))
        assert first and second
        assert [row[:2] for row in first + second] == [[e, b] for e in range(12) for b in range(7)]
    assert (tmp_path / "outputs/train/long/npnet/best").is_dir()


def test_a_collection_killed_by_its_time_limit_goes_on_when_it_is_queued_again(slurm, pairs, tmp_path):
    """One job, whose time is over at once: SLURM kills it instead of asking."""
    options = ["--array=1", "--cpus-per-task=1", "--signal=B:URG@1"]
    few = ["collection.batch_size=1", "collection.select_by=auto", "pipeline.steps=20"]  # slow
    number = slurm.submit("collect", tmp_path, options, [*PAIRS, *few, "device=cpu", f"data_dir={tmp_path}/pairs"])
    slurm.until(number, lambda: len(shards(tmp_path / "pairs")) > 1)
    slurm.call("scontrol", "update", f"JobId={number}_1", "EndTime=now+1seconds")
    assert slurm.wait(number) == {"TIMEOUT"}, said(tmp_path)
    before = shards(tmp_path / "pairs")
    assert 1 < len(before) < 8
    slurm.call("scontrol", "requeue", f"{number}_1")
    slurm.call("scontrol", "update", f"JobId={number}_1", "TimeLimit=60")
    assert slurm.wait(number) == {"COMPLETED"}, said(tmp_path)
    after = shards(tmp_path / "pairs")
    assert len(after) == 8 and before.items() <= after.items()


def test_one_job_of_an_array_is_queued_again_alone(slurm, pairs, tmp_path):
    """Not those that still run, nor those that have ended."""
    options = ["--array=1-2", "--cpus-per-task=1"]
    few = ["collection.batch_size=1", "collection.select_by=auto", "pipeline.steps=20"]  # slow
    number = slurm.submit("collect", tmp_path, options, [*PAIRS, *few, "device=cpu", f"data_dir={tmp_path}/pairs"])
    slurm.until(number, lambda: len(shards(tmp_path / "pairs")) > 1)
    slurm.call("scancel", "--batch", "--signal=USR1", f"{number}_2")  # its number is the array's
    assert slurm.wait(number) == {"COMPLETED"}, said(tmp_path)
    assert {job["ArrayTaskId"]: job["Restarts"] for job in slurm.show(number)} == {"1": "0", "2": "1"}
    assert len(shards(tmp_path / "pairs")) == 8


def test_the_jobs_of_an_array_share_a_sweep(slurm, pairs, tmp_path):
    options = ["--array=1-2", "--ntasks=1", "--cpus-per-task=1", "--job-name=study"]
    places = [f"paths.outputs={tmp_path}/outputs", f"data_dir={pairs}", "logger=csv"]
    number = slurm.submit("sweep", tmp_path, options, [*SMALL, *places, "debug=limited", "trainer=ddp_cpu", "seed=1,2"])
    assert slurm.wait(number) == {"COMPLETED"}, said(tmp_path)
    runs = [tmp_path / f"outputs/train/study/seed={seed}" for seed in (1, 2)]
    assert [json.loads((run / "run.json").read_text())["ranks"] for run in runs] == [2, 2]
    assert (tmp_path / "outputs/train/study/summary.csv").is_file()
    assert said(tmp_path).count("NPNet: ") == 2  # each training once


@pytest.mark.parametrize(("job", "images"), [("evaluate", "images"), ("generate", "")])
def test_the_jobs_of_an_array_draw_each_image_once(slurm, tmp_path, job, images):
    options = ["--array=1-2", "--cpus-per-task=1", "--job-name=shared"]
    few = ["prompts=shapes_test", "prompts.count=8", "pipeline.steps=2", "device=cpu", f"paths.outputs={tmp_path}"]
    methods = {"evaluate": ["evaluation.methods=[standard,npnet]", "evaluation.batch_size=2"], "generate": []}
    number = slurm.submit(job, tmp_path, options, [*few, *methods[job]])
    assert slurm.wait(number) == {"COMPLETED"}, said(tmp_path)
    run = tmp_path / job / "shared"
    assert len(list((run / images / "standard").glob("*.png"))) == 8
    assert not list(run.rglob("*.claim"))


def rows(folder: Path, run: int, rank: int) -> list[list]:
    """Epoch, number in it, and keys of each batch that a rank of a run of the job has learnt from."""
    file = folder / f"run{run}-rank{rank}"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
