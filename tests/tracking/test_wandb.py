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
