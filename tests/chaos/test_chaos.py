"""Nothing is lost, whatever fails under a job: faults at random system calls (`python -m tests.chaos.inject`)."""

import json
import os
import subprocess
import sys

import pytest

from tests.chaos.faults import NAMES
from tests.chaos.jobs import JOBS
from tests.chaos.library import compiler
from tests.forked import ROOT


@pytest.fixture(autouse=True)
def a_compiler():
    if sys.platform != "linux":
        pytest.skip("LD_PRELOAD and /proc are Linux's")
    if compiler() is None:
        if "CI" in os.environ:
            pytest.fail("continuous integration needs a C compiler")
        pytest.skip("needs a C compiler, gcc or cc")


def inject(*options: str) -> dict[str, int]:
    """What became of the faults, counted."""
    command = [sys.executable, "-m", "tests.chaos.inject", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.long
def test_faults_lose_nothing():
    kinds = ["kill", "full", "broken", "short"]
    counted = inject("--faults=4", "--seed=1", "--in-a-row=2", "--jobs", "collect", "--kinds", *kinds)
    assert counted["injected"] >= 2
    assert counted["lost"] == counted["unclear"] == 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("job", JOBS)
def test_hundreds_of_faults_lose_nothing(job):
    counted = inject(f"--faults={6 * len(NAMES)}", "--seed=7", "--jobs", job)
    assert counted["injected"] >= 3 * len(NAMES)
    assert counted["lost"] == counted["unclear"] == 0
