"""The private names of Hydra's that the command line stands on do what it expects of them."""

import sys

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

import golden_noise.cli.entry  # noqa: F401 what conf/hydra asks for
from golden_noise.cli.hydra_app import App, parser
from golden_noise.errors import UserError


@pytest.fixture
def app(tmp_path):
    """Makes the application of train.py from a command line."""

    def make(*arguments):
        return App("train", parser().parse_args([*arguments, f"paths.outputs={tmp_path}"]))

    return make


@pytest.fixture(autouse=True)
def no_hydra():
    yield
    HydraConfig.instance().cfg = None


def test_a_job_runs_with_its_config(app):
    seen = []
    with app("seed=3", "name=x") as found:
        found.run(lambda config: seen.append((config.seed, HydraConfig.get().mode, HydraConfig.get().job.name)))
    assert seen == [(3, RunMode.RUN, "train")]
    assert not GlobalHydra.instance().is_initialized()


def test_a_multirun_runs_every_job(app, monkeypatch):
    seen = []
    here = "hydra/launcher=basic"  # not the process launcher, which would run train.py
    for arguments in (["-m", here, "seed=1,2"], [here, "seed=3,4", "hydra.mode=MULTIRUN"]):
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        with app(*arguments) as found:
            found.run(lambda config: seen.append((config.seed, HydraConfig.get().mode)))
    assert seen == [(seed, RunMode.MULTIRUN) for seed in (1, 2, 3, 4)]


def test_errors_come_out_as_they_are(app):
    with pytest.raises(KeyError), app("name=x") as found:
        found.run(lambda config: {}["missing"])


def test_a_folder_of_the_users_own_has_more_choices(app, tmp_path):
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe/mine.yaml").write_text("epochs: 7")
    with app("--config-dir", str(tmp_path), "recipe=mine") as found:
        assert found.compose().recipe == {"epochs": 7}
    with pytest.raises(UserError, match="is not a folder"):
        app("--config-dir", str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--cfg", "hydra"], "hydra:"),
        (["--cfg", "job", "--package", "recipe"], "epochs: 30"),
        (["--info", "defaults"], "recipe/published"),
        (["--hydra-help"], "Hydra"),
    ],
)
def test_hydras_own_options_show_what_they_did(option, words, capsys):
    with App("train", parser().parse_args(option)) as found:
        found.show()
    assert words in "".join(capsys.readouterr())
