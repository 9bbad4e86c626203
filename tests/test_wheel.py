"""The built wheel, installed away from the clone: `make package` builds it first."""

import csv
import os
import subprocess
import sysconfig
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml

from golden_noise.__main__ import JOBS, TOOLS
from golden_noise.cli.conf import CONF

pytestmark = [pytest.mark.package, pytest.mark.timeout(600)]
DIST = CONF.parent / "dist"
SMALL = ["prompts.count=40", "collection.shard_size=20", "recipe.epochs=1", "recipe.batch_size=10", "logger=csv"]


@pytest.fixture(scope="module")
def wheel() -> Path:
    (found,) = DIST.glob("golden_noise-*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """An environment of the wheel alone, which finds the other packages where the tests have them."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    pip = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel]
    subprocess.run(pip, check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "beside.pth").write_text(sysconfig.get_path("purelib"), "utf-8")  # its own .pth files do not count
    return folder / "bin"


@pytest.fixture
def run(installed, tmp_path):
    """Runs a command of the environment in an empty folder; returns what it printed."""

    def command(*words: str) -> str:
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        path = f"{installed}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            words, cwd=tmp_path, env={**variables, "PATH": path}, capture_output=True, text=True, timeout=500
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return command


def test_it_holds_what_git_does_and_nothing_else(wheel):
    tracked = subprocess.run(
        ["git", "ls-files", "conf", "golden_noise", "hydra_plugins"],
        cwd=CONF.parent,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    moved = {f"golden_noise/{name}" if name.startswith("conf/") else name for name in tracked}
    held = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == moved


def test_it_is_the_one_that_is_imported(run):
    where = run("python", "-c", "import golden_noise; print(golden_noise.__file__)").strip()
    assert not Path(where).is_relative_to(CONF.parent)


def test_every_command_helps(run):
    shown = run("golden-noise", "--help")
    assert all(f"  {name} " in shown for name in (*JOBS, *TOOLS))
    assert run("golden-noise", "--version").startswith("golden-noise ")
    for name in TOOLS:
        assert f"golden-noise {name}" in run("golden-noise", name, "--help")
    assert "golden-noise train experiment=shapes" in run("golden-noise", "train", "--help")


def test_the_whole_loop_and_an_image(run, tmp_path):
    run("golden-noise", "train", "experiment=shapes", "name=demo", *SMALL, "evaluation.prompts.count=8")
    folder = tmp_path / "outputs/train/demo"
    assert (folder / "npnet/best/config.json").is_file()
    assert "$ golden-noise train experiment=shapes name=demo" in (folder / "log.txt").read_text("utf-8")
    run("golden-noise", "generate", "prompt=a red circle", "npnet=outputs/train/demo", "name=drawn")
    assert len(list((tmp_path / "outputs/generate/drawn").rglob("*.png"))) >= 2


def test_a_sweep_starts_its_jobs_again(run, tmp_path):
    run("golden-noise", "train", "-m", "experiment=shapes", "seed=1,2", "name=two", "evaluate=false", *SMALL)
    with open(tmp_path / "outputs/train/two/summary.csv", encoding="utf-8") as file:
        assert {row["seed"] for row in csv.DictReader(file)} == {"1", "2"}


def test_two_processes_train_together(run, tmp_path):
    run("golden-noise", "train", "experiment=shapes", "trainer=ddp_cpu", "name=both", "evaluate=false", *SMALL)
    assert (tmp_path / "outputs/train/both/npnet/best/config.json").is_file()


def test_a_config_is_copied_and_used(run, tmp_path):
    run("golden-noise", "config", "cp", "pipeline/shapes", "mine/pipeline/larger.yaml")
    copy = tmp_path / "mine/pipeline/larger.yaml"
    copy.write_text(copy.read_text("utf-8").replace("steps: 4", "steps: 3"), "utf-8")
    run("golden-noise", "generate", "--config-dir", "mine", "pipeline=larger", "prompt=a red circle", "name=copied")
    settings = yaml.safe_load((tmp_path / "outputs/generate/copied/config.yaml").read_text("utf-8"))
    assert settings["pipeline"]["steps"] == 3


def test_without_an_extra_a_command_says_what_to_install(installed, tmp_path):
    blocked = "import sys; sys.modules['hydra'] = None; sys.argv = ['golden-noise', 'train', 'experiment=shapes'];"
    code = f"{blocked} from golden_noise.__main__ import main; main()"
    done = subprocess.run([installed / "python", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: train needs the package hydra: pip install 'golden-noise[train]'\n"
