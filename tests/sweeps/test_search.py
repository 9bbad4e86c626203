"""Search spaces in W&B's format, and searches of real trainings: pruned, killed, shared."""

import copy
import subprocess
import sys
import time

import optuna
import pytest
import yaml
from omegaconf import OmegaConf
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args, load_sweep_config

from golden_noise.cli.conf import CONF
from golden_noise.cli.config import job_config
from golden_noise.cli.validation import check
from golden_noise.errors import UserError
from golden_noise.sweeps.search import Search
from golden_noise.sweeps.space import read_space
from golden_noise.tracking import record

SPACES = sorted(path.stem for path in (CONF / "sweep").glob("*.yaml"))
SPACE = {
    "method": "random",
    "metric": {"name": "val/explained", "goal": "maximize"},
    "parameters": {
        "seed": {"value": 4},
        "model": {"value": "svd_unet+unet"},
        "recipe.lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2},
        "model.npnet.svd": {"values": [True, False]},
        "recipe.backbone_args.depth": {"min": 1, "max": 2},
    },
}


@pytest.mark.parametrize("name", SPACES)
def test_spaces_suit_both_engines(name, monkeypatch):
    """Optuna's reading has all parameters, and the command line that W&B's agent makes composes."""
    monkeypatch.setenv("WANDB_RUN_ID", "abc123")
    space, theirs = read_space(name), load_sweep_config(str(CONF / "sweep" / f"{name}.yaml"))
    assert {*space.fixed, *space.varied} == {*theirs["parameters"]}
    for end in ("low", "high"):
        chosen = {
            key: getattr(d, end) if hasattr(d, end) else d.choices[0 if end == "low" else -1]
            for key, d in space.varied.items()
        }
        values = {key: {"value": value} for key, value in (space.fixed | chosen).items()}
        parts = create_sweep_command_args({"args": values})
        parts |= {"env": ["/usr/bin/env"], "interpreter": ["python"], "program": [theirs["program"]]}
        line = []
        for chunk in create_sweep_command(copy.copy(theirs["command"])):
            line += parts[chunk[2:-1]] if chunk.startswith("${") else [chunk]
        assert line[:3] == ["/usr/bin/env", "python", "train.py"]
        config = job_config("train", [*line[3:], "folder=run", "data_dir=pairs"])
        check(config)
        assert config.name == "wandb/abc123"
        assert config.logger.wandb.mode == "online"
        assert all(OmegaConf.select(config, key) == value for key, value in chosen.items())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": "grid"}, "method=grid must be bayes or random"),
        ({"metric": {"name": "val/loss"}}, "goal is missing"),
        ({"parameters": {"a": {"min": 1}}}, "max is missing"),
        ({"parameters": {"a": {"min": 1, "max": 2, "distribution": "beta"}}}, "a: distribution beta is not known"),
        ({"parameters": ["a"]}, "'list' object has no attribute 'items'"),
        ({"early_terminate": {"type": "envelope"}}, "must be hyperband"),
    ],
)
def test_a_space_that_cannot_be_searched_is_one_line(tmp_path, change, words):
    file = tmp_path / "space.yaml"
    file.write_text(yaml.safe_dump(SPACE | change))
    with pytest.raises(UserError, match=words):
        read_space(str(file))


def test_an_unknown_space_names_the_known_ones():
    with pytest.raises(UserError, match=r"no search space nonsense: .*recipe"):
        read_space("nonsense")


def write_space(tmp_path, **changes):
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE | changes))
    return str(tmp_path / "space.yaml")


def test_unknown_settings_are_one_line_before_anything_runs(tmp_path):
    space = read_space(write_space(tmp_path, parameters={"recipe.nonsense": {"min": 1, "max": 2}}))
    with pytest.raises(UserError, match="nonsense"):
        Search(space, "study", [f"paths.outputs={tmp_path}"], trials=1)
    with pytest.raises(UserError, match="csv"):
        Search(read_space(write_space(tmp_path)), "study", [f"paths.outputs={tmp_path}", "logger=wandb"], trials=1)


def test_a_search_with_other_settings_does_not_join(tmp_path):
    places = [f"paths.outputs={tmp_path}"]
    Search(read_space(write_space(tmp_path)), "study", places, trials=1)
    Search(read_space(write_space(tmp_path)), "study", places, trials=5)
    with pytest.raises(UserError, match="a search with other settings"):
        Search(read_space(write_space(tmp_path, method="bayes")), "study", places, trials=1)


def start(tmp_path, small, *options):
    arguments = [sys.executable, "-m", "golden_noise", "sweeps", "search", str(tmp_path / "space.yaml"), *options]
    return subprocess.Popen(
        [*arguments, "--name", "study", "--config", *small, "logger=csv"],
        cwd=CONF.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process, seconds=280):
    output, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, output
    return output


def trials(tmp_path):
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "outputs/train/study/study.journal")))
    return optuna.load_study(study_name="study", storage=storage).trials


def test_a_search_finds_the_best_and_goes_on(tmp_path, small):
    write_space(tmp_path)
    output = ended(start(tmp_path, small, "--trials", "2"))
    found = trials(tmp_path)
    assert [trial.state for trial in found] == [TrialState.COMPLETE] * 2
    best = max(found, key=lambda trial: trial.value)
    assert f"best: trial {best.number}, val/explained {best.value:.4f}: python train.py" in output
    assert found[0].params != found[1].params
    for trial in found:
        config = yaml.safe_load((tmp_path / f"outputs/train/study/trial-{trial.number:04d}/config.yaml").read_text())
        assert config["recipe"]["lr"] == trial.params["recipe.lr"]
        assert config["model"]["npnet"]["svd"] == trial.params["model.npnet.svd"]
        assert config["seed"] == 4
        assert list(trial.intermediate_values) == [1, 2]
    assert (tmp_path / "outputs/train/study/summary.html").is_file()


def test_trainings_that_outlived_their_search_count_in_full(tmp_path):
    """What a killed search had started ran to its end: neither trained again nor pruned, however bad it is."""
    space = read_space(write_space(tmp_path, early_terminate={"type": "hyperband", "min_iter": 1, "eta": 2}))
    search = Search(space, "study", [f"paths.outputs={tmp_path}/outputs"], trials=2)
    for number, value in enumerate((0.2, 0.1)):
        log = search.folder / f"trial-{number:04d}/csv/version_0/metrics.csv"
        log.parent.mkdir(parents=True)
        log.write_text("epoch,val/explained\n" + "".join(f"{epoch},{value}\n" for epoch in range(3)))
        record.write(log.parents[2], {"explained": value})
    search.run()
    found = trials(tmp_path)
    assert [(trial.state, trial.value) for trial in found] == [(TrialState.COMPLETE, 0.2), (TrialState.COMPLETE, 0.1)]
    assert [list(trial.intermediate_values) for trial in found] == [[1, 2, 3]] * 2
    assert not list(search.folder.glob("*/log.txt"))


def test_a_metric_that_is_never_logged_is_one_line(tmp_path):
    space = read_space(write_space(tmp_path, metric={"name": "val/nonsense", "goal": "maximize"}))
    search = Search(space, "study", [f"paths.outputs={tmp_path}/outputs"], trials=1)
    (search.folder / "trial-0000").mkdir()
    record.write(search.folder / "trial-0000", {"explained": 0.1})
    with pytest.raises(UserError, match="logged no val/nonsense"):
        search.run()


@pytest.mark.slow
def test_bad_trials_are_pruned_and_killed_searches_share_and_go_on(tmp_path, small):
    """Learning rate 0 explains nothing: once a good trial is known, such trials end early."""
    write_space(
        tmp_path,
        parameters={"model.optimizer.lr": {"values": [0.0, 0.01]}},
        early_terminate={"type": "hyperband", "min_iter": 1, "eta": 2},
    )
    long = [*small, "trainer.max_epochs=60", "trainer.limit_train_batches=4"]
    victim = start(tmp_path, long, "--trials", "6")
    checkpoint = tmp_path / "outputs/train/study/trial-0000/checkpoints/last.ckpt"
    deadline = time.monotonic() + 100
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    victim.kill()
    victim.wait()
    workers = [start(tmp_path, long, "--trials", "6") for _ in range(2)]
    for worker in workers:
        ended(worker, 500)
    ended(start(tmp_path, long, "--trials", "6"))  # takes up what the killed one's orphan finished
    found = trials(tmp_path)
    assert len(found) == 6
    assert {trial.state for trial in found} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert (
        max(found, key=lambda t: t.value if t.state == TrialState.COMPLETE else -9).params["model.optimizer.lr"] == 0.01
    )
    for trial in found:
        pruned = trial.state == TrialState.PRUNED
        assert pruned == (len(trial.intermediate_values) < 60)
