"""How this process was started: as `python train.py`, `golden-noise train` or `python -m golden_noise train`."""

import os
import sys
from pathlib import Path

PROGRAM = "golden-noise"


def arguments() -> list[str]:
    """The command line without the program and, of `golden-noise`, without its command."""
    return sys.argv[2:] if _is_package() else sys.argv[1:]


def words() -> list[str]:
    """The program in the words of its user: `python train.py` or `golden-noise train`."""
    return [PROGRAM, *sys.argv[1:2]] if _is_package() else ["python", sys.argv[0]]


def command(job: str) -> str:
    """Another job in the same words: `python collect.py` or `golden-noise collect`."""
    return f"{PROGRAM} {job}" if _is_package() else f"python {job}.py"


def again() -> list[str]:
    """What starts the program again after `sys.executable`, without its arguments."""
    return ["-m", "golden_noise", *sys.argv[1:2]] if _is_package() else [sys.argv[0]]


def _is_package() -> bool:
    path = Path(sys.argv[0])
    return path.stem == PROGRAM or path.parts[-2:] == ("golden_noise", "__main__.py")


def share_cores() -> None:
    """Lets torch's threads sleep while they wait for each other; to be called before torch is imported.

    By default OpenMP's threads spin, on cores that other processes want: beside one busy process per core, two threads
    then took four times as long (benchmarks/gains.py).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
