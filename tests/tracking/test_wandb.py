"""Logging in to W&B: needed only where runs go there at once, and then before any work."""

import pytest
from omegaconf import OmegaConf

from golden_noise.errors import UserError
from golden_noise.tracking.wandb import log_in
from tests.forked import run_script


def config(mode):
    return OmegaConf.create({"logger": {"wandb": {"mode": mode}}})


@pytest.mark.parametrize("logger", [{}, {"wandb": {"mode": "offline"}}, {"wandb": {"mode": "disabled"}}, {"csv": {}}])
def test_nobody_logs_in_where_nothing_is_sent(logger):
    log_in(OmegaConf.create({"logger": logger}))


def test_an_unknown_mode_is_named():
    with pytest.raises(UserError, match=r"logger\.wandb\.mode=nonsense must be one of offline, online, disabled"):
        log_in(config("nonsense"))


ONLINE = """
import os
for name in [name for name in os.environ if name.startswith("WANDB_")]:
    del os.environ[name]
from omegaconf import OmegaConf
from golden_noise.errors import UserError
from golden_noise.tracking.wandb import log_in
from tests.forked import run_script
for key in ("", "a b"):
    os.environ["WANDB_API_KEY"] = key
    try:
        log_in(OmegaConf.create({"logger": {"wandb": {"mode": "online"}}}))
    except UserError as error:
        print(error)
"""


def test_without_a_valid_key_one_line_says_so(tmp_path):
    # In a process of its own: W&B reads its settings once.
    (tmp_path / "online.py").write_text(ONLINE)
    done = run_script(tmp_path, str(tmp_path / "online.py"), environment={"HOME": str(tmp_path), "PATH": ""})
    lines = [line.removeprefix("logger.wandb.mode=online: ")[:22] for line in done.stdout.splitlines()]
    assert lines == ["No API key configured.", "WANDB_API_KEY invalid:"], done.stderr


ENDED = """
import contextlib
import sys
import time
from pathlib import Path
import wandb as library
from wandb.sdk import wandb_setup
from golden_noise.tracking import wandb
from golden_noise.tracking.wandb import Wandb, report_weights_used, weights_artifact
from PIL import Image

logger = Wandb(save_dir=sys.argv[1], project="tests", offline=True)
for step in range(3):
    logger.log_metrics({"loss": 1.0}, step)
service = wandb_setup.singleton()._connection._proc._process
service.terminate()
service.wait()
if sys.argv[2] == "by its code":
    plain = library.teardown
    def teardown():
        with contextlib.suppress(ConnectionError):
            plain()
        sys.exit(-15)  # what W&B does if it can still send
    library.teardown = teardown
if sys.argv[2] == "while it logs":
    wandb._has_ended = lambda: False  # it had not when it was asked
for step in range(3, 9):
    logger.log_metrics({"loss": 2.0}, step)
    time.sleep(0.05)
logger.log_grid("grid", Image.new("RGB", (8, 8)), 9, "caption")
logger.log_table("table", ["column"], [[1]])
logger.log_figures({"figure": 1})
report_weights_used(logger.experiment, Path(sys.argv[3]))
logger.experiment.log_artifact(weights_artifact(Path(sys.argv[3])))
logger.finalize("success")
logger.finish()
print("went on")
"""


@pytest.mark.parametrize("noticed", ["before", "while it logs", "by its code"])
def test_a_job_goes_on_when_wandbs_process_has_ended(tmp_path, noticed):
    """SIGTERM ends it, which a cluster sends to all processes of a job."""
    weights = tmp_path / "run/npnet/best"
    weights.mkdir(parents=True)
    (weights / "config.json").write_text("{}")
    (tmp_path / "ended.py").write_text(ENDED)
    (tmp_path / "said").mkdir()
    done = run_script(tmp_path / "said", str(tmp_path / "ended.py"), str(tmp_path), noticed, str(weights))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "went on"), done.stderr
    assert "Traceback" not in done.stderr
    (folder,) = tmp_path.glob("wandb/offline-run-*")
    assert done.stderr.count("W&B's process has ended, nothing more is logged to it: `wandb sync ") == 1
    assert f"`wandb sync {folder}`" in done.stderr
    assert [*folder.glob("*.wandb")]


LATE = """
import contextlib
import sys
import time
from wandb.sdk import wandb_setup
from golden_noise.tracking.wandb import Wandb

logger = Wandb(save_dir=sys.argv[1], project="tests", offline=True)
logger.log_metrics({"loss": 1.0}, 0)
run, connection = logger.experiment, wandb_setup.singleton()._connection
connection._proc._process.terminate()
connection._proc._process.wait()
for _ in range(2):  # what W&B's own threads try to send breaks the connection
    with contextlib.suppress(ConnectionError):
        run.log({"loss": 2.0})
    time.sleep(0.1)
connection.teardown(0)  # by W&B's hook at exit, which a fork does not run
"""


def test_wandbs_process_may_end_after_the_last_line(tmp_path):
    """As in a training that SIGTERM ends: it writes its checkpoint and logs nothing more."""
    (tmp_path / "late.py").write_text(LATE)
    (tmp_path / "said").mkdir()
    done = run_script(tmp_path / "said", str(tmp_path / "late.py"), str(tmp_path))
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
