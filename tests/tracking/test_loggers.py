"""Every logger gets the same run and is read back by its own reader: all that is logged is there, once."""

import subprocess
import sys
import tomllib

import numpy as np
import pytest
import yaml
from hydra.errors import InstantiationException
from lightning.pytorch.utilities import rank_zero_only
from packaging.requirements import Requirement
from PIL import Image, ImageChops

from golden_noise.cli.conf import CONF, choices
from golden_noise.cli.mistakes import describe
from golden_noise.cli.validation import check
from golden_noise.errors import UserError
from golden_noise.tracking import packages
from golden_noise.tracking.loggers import begin_run, run_loggers
from golden_noise.tracking.run_logger import THUMBNAIL

from .readers import READERS, read_wandb

LOGGERS = choices("logger")
SAME_RUN = ("tensorboard", "mlflow", "trackio")  # a resumed job goes on in it; the others begin another
PROMPT = 'größe | "two"\ncircles 圆'


def picture(width, height, seed=0):
    """An image without two equal pixels in a row."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def equal(one, two):
    return one.size == two.size and ImageChops.difference(one.convert("RGB"), two.convert("RGB")).getbbox() is None


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """MLflow's, which takes seconds to make."""
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def config(compose_job, tmp_path, store, monkeypatch):
    """Composes a training's config with loggers; projects are apart, as Trackio has one store per process."""
    projects = {"trackio": "logger.trackio.project", "mlflow": "logger.mlflow.experiment_name"}

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}/mlflow.db")

    def composed(loggers, *options):
        (tmp_path / "run").mkdir(exist_ok=True)
        named = [f"{key}={tmp_path.name}" for logger, key in projects.items() if logger in loggers]
        return compose_job("train", f"logger={loggers}", "name=study/größe=1", *named, *options)

    return composed


@pytest.fixture
def read(tmp_path, read_offline_run):
    def read(logger):
        if logger == "wandb":
            return read_wandb(tmp_path / "run", tmp_path.name, read_offline_run)
        return READERS[logger](tmp_path / "run", tmp_path.name)

    return read


def finish(loggers):
    for logger in loggers:
        logger.finalize("success")
    for logger in run_loggers(loggers):
        logger.finish()


def epochs(found):
    """A setting as the logger keeps it: by its whole name, or nested."""
    nested = found.settings.get("recipe", {})
    return int(found.settings.get("recipe.epochs", nested.get("epochs")))


COLUMNS = ["index", "prompt", "standard", "npnet", "strict/npnet"]
ROWS = [[0, PROMPT, picture(40, 24, 1), picture(40, 24, 2), 0.25], [1, "", picture(40, 24, 3), picture(40, 24, 4), 1.0]]


@pytest.mark.parametrize("logger", LOGGERS)
def test_all_that_is_logged_is_read_back(logger, config, read):
    loggers = begin_run(config(logger))
    for step, loss in ((0, 0.5), (7, 0.25)):
        loggers[0].log_metrics({"train/loss": loss, "größe": 1.0}, step)
    for each in run_loggers(loggers):
        each.log_grid("samples", picture(48, 32), 7, "standard | golden")
        each.log_table("eval/images", COLUMNS, iter(ROWS))
        each.log_figures({"eval/strict/npnet": 0.75, "run/device": "cpu"})
    finish(loggers)
    found = read(logger)
    assert found.metrics["train/loss"] == [(0, 0.5), (7, 0.25)]
    assert epochs(found) == 5
    if logger == "csv":
        return
    ((_, figure),) = found.metrics["eval/strict/npnet"]
    assert figure == 0.75
    ((step, grid),) = found.grids
    assert step == 7 and equal(grid, picture(48, 32))
    assert len(found.rows) == 2
    if logger == "tensorboard":  # Markdown, and one row of images each
        assert found.columns == ["index", "prompt", "strict/npnet", "images"]
        assert [row[:-1] for row in found.rows] == [["0", 'größe &#124; "two" circles 圆', "0.25"], ["1", "", "1"]]
        pairs = [(row[-1].crop((0, 0, 40, 24)), row[-1].crop((40, 0, 80, 24))) for row in found.rows]
    else:
        assert found.columns == COLUMNS
        assert [[row[i] for i in (0, 1, 4)] for row in found.rows] == [[row[i] for i in (0, 1, 4)] for row in ROWS]
        pairs = [(row[2], row[3]) for row in found.rows]
        assert found.groups == {"study"}
        assert "study/größe=1" in found.names[0]
    assert all(equal(*each) for pair, row in zip(pairs, ROWS, strict=True) for each in zip(pair, row[2:4], strict=True))


@pytest.mark.parametrize("logger", LOGGERS)
def test_a_resumed_job_goes_on_in_its_run_where_the_tool_can(logger, config, read, store, tmp_path):
    for step, length in ((0, 1), (4, 2)):  # settings that may change when a training resumes
        loggers = begin_run(config(logger, f"recipe.epochs={length}"))
        loggers[0].log_metrics({"val/explained": 0.5}, step)
        finish(loggers)
    found = read(logger)
    assert sorted(found.metrics["val/explained"]) == [(0, 0.5), (4, 0.5)]  # two runs are read in any order
    assert len(found.names) == (1 if logger in SAME_RUN else 2)
    if logger == "mlflow":  # never changes a parameter, but the file is the last
        assert epochs(found) == 1
        (file,) = store.glob(f"artifacts/{(tmp_path / 'run/.mlflow').read_text()}/artifacts/config.yaml")
        assert yaml.safe_load(file.read_text())["recipe"]["epochs"] == 2


@pytest.mark.parametrize("logger", ["mlflow", "trackio"])
def test_a_folder_made_anew_is_another_run(logger, config, read, tmp_path):
    for step in (0, 4):
        loggers = begin_run(config(logger))
        loggers[0].log_metrics({"val/explained": 0.5}, step)
        finish(loggers)
        (tmp_path / f"run/.{logger}").unlink()
    assert len(read(logger).names) == 2


def test_a_run_whose_name_another_has_taken_is_not_mixed_with_it(config, read, tmp_path):
    for step, folder in enumerate(("run", "other", "run")):
        (tmp_path / folder).mkdir(exist_ok=True)
        loggers = begin_run(config("trackio", f"logger.trackio.folder={tmp_path}/{folder}"))
        loggers[0].log_metrics({"val/explained": 0.5}, step)
        finish(loggers)
    assert len(read("trackio").names) == 3


def test_a_run_that_the_store_does_not_have_is_named(config, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.mlflow").write_text("0123abc")
    with pytest.raises(UserError, match=r"MLflow cannot begin a run: .*id=0123abc not found, which .*\.mlflow names"):
        begin_run(config("mlflow"))


def test_a_store_that_mlflow_refuses_is_one_line(config):
    with pytest.raises(InstantiationException) as raised:
        begin_run(config("mlflow", "logger.mlflow.tracking_uri=some/folder"))
    line = describe(raised.value, "train")
    assert line.startswith("logger.mlflow: ") and "maintenance mode" in line and "\n" not in line


@pytest.mark.parametrize("logger", LOGGERS)
def test_only_rank_0_writes(logger, config, tmp_path, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    loggers = begin_run(config(logger))
    loggers[0].log_metrics({"train/loss": 1.0}, 0)
    for each in run_loggers(loggers):
        each.log_grid("samples", picture(8, 8), 0, "")
        each.log_table("eval/images", COLUMNS, iter(ROWS))
        each.log_figures({"eval/strict/npnet": 0.75})
    finish(loggers)
    assert list((tmp_path / "run").rglob("*")) == []


@pytest.mark.parametrize("logger", sorted({*LOGGERS} - {"csv"}))
def test_tables_may_be_empty_and_images_huge(logger, config, read):
    loggers = run_loggers(begin_run(config(logger)))
    loggers[0].log_table("eval/images", COLUMNS, [])
    loggers[0].log_table("eval/images", COLUMNS, [[0, PROMPT, picture(2048, 1024), picture(1024, 2048), float("nan")]])
    finish(loggers)
    found = read(logger)
    ((*_, image, _),) = found.rows if logger != "tensorboard" else [(*found.rows[0], None)]
    sizes = {"wandb": (1024, 2048), "tensorboard": (2 * THUMBNAIL, THUMBNAIL)}
    assert image.size == sizes.get(logger, (THUMBNAIL // 2, THUMBNAIL))


@pytest.mark.parametrize(
    ("logger", "package", "extra"),
    [
        ("wandb", "wandb", "evaluate"),
        ("tensorboard", "tensorboard", "tensorboard"),
        ("mlflow", "mlflow-skinny", "mlflow"),
        ("trackio", "trackio", "trackio"),
    ],
)
def test_a_missing_package_is_one_line_before_any_work(logger, package, extra, config, monkeypatch):
    check(config(logger))
    absent = {f"no_{module}": name for module, name in packages.PACKAGES[logger].items()}
    monkeypatch.setitem(packages.PACKAGES, logger, absent)
    with pytest.raises(UserError) as raised:
        check(config(f"[csv,{logger}]"))
    assert str(raised.value) == f"logger={logger} needs the package {package}: pip install 'golden-noise[{extra}]'"


def test_every_logger_has_its_extra():
    project = tomllib.loads((CONF.parent / "pyproject.toml").read_text("utf-8"))["project"]
    for logger, modules in packages.PACKAGES.items():
        needs = project["optional-dependencies"][packages.EXTRA.get(logger, logger)]
        assert {*modules.values()} <= {Requirement(need).name for need in needs}


def test_a_folder_is_no_package(config, tmp_path, monkeypatch):
    (tmp_path / "only_a_folder").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(packages.PACKAGES, "trackio", {"only_a_folder": "trackio"})
    with pytest.raises(UserError, match="needs the package trackio"):
        check(config("trackio"))


@pytest.mark.parametrize(
    ("logger", "option", "words"),
    [
        ("trackio", "logger.trackio.project=' '", r"logger\.trackio\.project=  must be text"),
        ("mlflow", "logger.mlflow.tags=5", r"logger\.mlflow\.tags=5 must be"),
        ("tensorboard", "logger.tensorboard.save_dir=''", r"logger\.tensorboard\.save_dir= must be text"),
    ],
)
def test_a_setting_of_another_type_is_refused(logger, option, words, config):
    with pytest.raises(UserError, match=words):
        check(config(logger, option))


def test_help_imports_no_logger(tmp_path):
    code = f"""
import sys
from golden_noise.cli.entry import run
sys.argv[1:] = ["--help", "logger=[{",".join(LOGGERS)}]", "paths.outputs={tmp_path}"]
run(lambda config: None, "train")
print(*({{*{LOGGERS}, "lightning", "torch", "pandas", "sqlalchemy"}} & sys.modules.keys()), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=CONF.parent, capture_output=True, text=True, timeout=120)
    assert done.stderr.splitlines()[-1].split() in ([], ["csv"]), done.stderr  # csv: Python's own
    assert f"logger: {', '.join(LOGGERS)}" in done.stdout
