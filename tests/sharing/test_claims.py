"""Locks that end with their process."""

import os
import signal
import subprocess
import sys

import pytest

from golden_noise.errors import UserError
from golden_noise.sharing.claims import alone


def test_a_forked_process_does_not_keep_the_locks_of_a_killed_one(tmp_path):
    """As the workers of a DataLoader, which live on for seconds."""
    script = f"""
import os, sys, time
from pathlib import Path
from golden_noise.sharing.claims import alone
with alone(Path({str(tmp_path)!r}), "training"):
    if os.fork() == 0:  # by now it has dropped its copies
        print("forked", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout.readline() == "forked\n"
        with pytest.raises(UserError, match="another process works in"), alone(tmp_path, "training"):
            pass
        process.kill()
        process.wait()
        with alone(tmp_path, "training"):
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)
