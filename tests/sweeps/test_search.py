"""Searches by Hydra's Optuna sweeper with real trainings: resumed, pruned, shared; and W&B's files."""

import copy
import json
import time

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args, load_sweep_config

from golden_noise.cli.conf import CONF, is_group
from golden_noise.cli.config import job_config
from golden_noise.cli.validation import check
from tests.forked import start_script

SPACES = sorted(path.stem for path in (CONF / "sweep").glob("*.yaml"))


def wandb_space(name):
    """(searched, fixed) parameters of a file of W&B's."""
    given = load_sweep_config(str(CONF / "sweep" / f"{name}.yaml"))["parameters"]
    fixed = {key: found["value"] for key, found in given.items() if "value" in found}
    return {key: found for key, found in given.items() if key not in fixed}, fixed


@pytest.mark.parametrize("name", SPACES)
def test_a_search_and_its_wandb_sweep_are_the_same(name):
    searched, fixed = wandb_space(name)
    groups = [f"{key}={value}" for key, value in fixed.items() if is_group(key)]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", [f"hparams_search={name}", *groups], return_hydra_config=True)
    params = config.hydra.sweeper.params
    assert {*params} == {*searched}
    for key, text in params.items():
        found, given = OverridesParser.create().parse_override(f"{key}={text}").value(), searched[key]
        if "values" in given:
            assert [*found.list] == given["values"]
        elif "distribution" in given:
            assert (found.start, found.end, found.tags) == (given["min"], given["max"], {"log"})
        else:
            assert [*found.list] == [*range(given["min"], given["max"] + 1)]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        stated = compose("train", [f"{key}={value}" for key, value in fixed.items()])
    chosen, theirs = (OmegaConf.to_container(found, resolve=False) for found in (config, stated))
    del chosen["hydra"]
    assert chosen == theirs


@pytest.mark.parametrize("name", SPACES)
def test_the_command_of_wandbs_agent_composes(name, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "abc123")
    theirs = load_sweep_config(str(CONF / "sweep" / f"{name}.yaml"))
    searched, fixed = wandb_space(name)
    for end, position in {"min": 0, "max": -1}.items():
        chosen = {key: given[end] if end in given else given["values"][position] for key, given in searched.items()}
        parts = create_sweep_command_args({"args": {k: {"value": v} for k, v in (fixed | chosen).items()}})
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


@pytest.fixture
def start(small, tmp_path):
    """Starts a search of a small training."""

    def script(trials, *options, space=None):
        space = {"recipe.lr": "tag(log, interval(1e-4, 1e-2))", "model.npnet.svd": "choice(true, false)"} | (
            space or {}
        )
        preset = {
            "defaults": ["_optuna"],
            "evaluate": False,
            "hydra": {"sweeper": {"n_trials": trials, "params": space}},
        }
        (tmp_path / "conf/hparams_search").mkdir(parents=True, exist_ok=True)
        text = "# @package _global_\n" + yaml.safe_dump(preset, sort_keys=False)
        (tmp_path / "conf/hparams_search/small.yaml").write_text(text)
        chosen = ["--config-dir", f"{tmp_path}/conf", "hparams_search=small", "name=study", "model=svd_unet+unet"]
        said = tmp_path / f"said{len(list(tmp_path.glob('said*')))}"
        said.mkdir()
        return start_script(said, "train.py", "-m", *chosen, *small, "logger=csv", *options), said

    return script


def ended(started, code=0, seconds=280):
    process, said = started
    process.join(seconds)
    output = "".join((said / name).read_text() for name in ("stdout", "stderr"))
    assert process.exitcode == code, output
    return output


def records(tmp_path):
    found = (tmp_path / "outputs/train/study").glob("*/run.json")
    return [json.loads(path.read_text()) for path in sorted(found, key=lambda path: path.stat().st_mtime_ns)]


@pytest.mark.slow
def test_a_search_finds_the_best_and_goes_on(start, tmp_path):
    ended(start(2, "hydra.launcher.halving=null"))
    first = records(tmp_path)
    assert len(first) == 2
    output = ended(start(3, "hydra.launcher.halving=null"))
    assert output.count("finished already") == 2
    found = records(tmp_path)
    assert found[:2] == first
    best = max(record["explained"] for record in found)
    assert f"best: {best:.4f} with recipe.lr=" in output
    study = tmp_path / "outputs/train/study"
    assert yaml.safe_load((study / "optimization_results.yaml").read_text())["best_value"] == best
    assert (study / "summary.html").is_file()
    rates = set()
    for path in study.glob("*/config.yaml"):
        config = yaml.safe_load(path.read_text())
        rates.add(config["recipe"]["lr"])
        assert path.parent.name.startswith(f"recipe.lr={config['recipe']['lr']},model.npnet.svd=")
        assert config["evaluate"] is False
    assert len(rates) == 3


@pytest.mark.slow  # a failed job of a plain sweep is in the default run
def test_trials_that_fail_stop_no_other(start, tmp_path):
    backbones = {"recipe.backbone": "choice(vit_tiny_patch16_224,nonsense)"}
    output = ended(start(4, "hydra.sweeper.n_jobs=2", "hydra.launcher.halving=null", space=backbones))
    assert "failed with exit code" in output
    assert "output.txt): rerun the same command to try it again" in output
    assert 1 <= len(records(tmp_path)) < 4
    output = ended(start(1, space={"recipe.backbone": "choice(nonsense)"}), 2)
    assert "error: No trials are completed yet" in output


@pytest.mark.slow
def test_bad_trials_are_pruned_and_killed_searches_share_and_go_on(start, tmp_path):
    """Learning rate 0 explains nothing: once a good trial is known, such trials end early."""
    options = ["trainer.max_epochs=60", "trainer.limit_train_batches=4", "hydra.launcher.halving.eta=2"]
    options += ["hydra.sweeper.n_jobs=2", "hydra.launcher.n_jobs=1"]
    space = {"recipe.lr": "choice(0.0, 0.01)", "seed": "choice(1, 2, 3)"}
    study = tmp_path / "outputs/train/study"
    victim, _ = start(8, *options, space=space)
    deadline = time.monotonic() + 100
    while not [*study.glob("*/checkpoints/last.ckpt")] and time.monotonic() < deadline:
        time.sleep(0.05)
    victim.kill()
    victim.join()
    outputs = [ended(worker, seconds=500) for worker in [start(8, *options, space=space) for _ in range(2)]]
    assert all("train.py" in output for output in outputs)  # both had something to do
    stopped, finished = ([*study.glob(f"*/{name}")] for name in ("stopped.json", "run.json"))
    assert any("lr=0.0," in path.parent.name for path in stopped)
    assert any("lr=0.01" in path.parent.name for path in finished)
    best = yaml.safe_load((study / "optimization_results.yaml").read_text())["best_params"]
    assert best["recipe.lr"] == 0.01
