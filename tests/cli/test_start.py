"""How long commands take to answer: counted in modules, since seconds depend on the machine."""

import subprocess
import sys

import pytest

from golden_noise.__main__ import JOBS, TOOLS

HEAVY = {
    *("torch", "diffusers", "transformers", "lightning", "timm", "wandb", "gradio"),
    *("numpy", "scipy", "PIL", "pandas"),
}


@pytest.mark.parametrize("command", [*JOBS, *TOOLS])
def test_help_loads_no_heavy_library(command):
    asked = [sys.executable, "-X", "importtime", "-m", "golden_noise", command, "--help"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "golden_noise" in loaded
    assert not loaded & HEAVY


def test_a_misspelt_command_is_named_with_the_nearest():
    done = subprocess.run([sys.executable, "-m", "golden_noise", "trian"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr == "error: no command 'trian': did you mean train?\n\n"
    assert "collect pairs of random and golden noise" in done.stdout
