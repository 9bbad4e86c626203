"""One section in a process of its own: `python -m benchmarks.gpu_day.section NAME FOLDER COMMIT [--tiny]`.

A section that damages the CUDA context or is killed leaves the others alone, and its memory goes with it.
"""

import argparse
import os
import platform
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path

import torch

from benchmarks.gpu_day.day import GIB, Day
from benchmarks.gpu_day.plan import SCRATCH, SECTIONS
from benchmarks.gpu_day.results import Result, Row
from golden_noise.errors import first_line


def machine(device: torch.device) -> dict[str, str]:
    """What the figures depend on."""
    facts = {"device": f"{platform.processor() or platform.machine()} CPU, {len(os.sched_getaffinity(0))} cores"}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts = {
            "device": f"{properties.name} ({properties.total_memory / GIB:.0f} GiB)",
            "cores": f"{len(os.sched_getaffinity(0))} CPU cores",
            "cuda": f"CUDA {torch.version.cuda}",
        }
    return facts | {"torch": f"torch {torch.__version__}"}


def run(name: str, folder: Path, commit: str, tiny: bool) -> Result:
    """Runs a section here and saves every row as it comes; an error of the whole section is part of the result."""
    device = torch.device("cpu" if tiny else "cuda")
    start = time.perf_counter()
    result = Result(name, tiny, commit)

    def add(row: Row) -> None:
        result.add(row)
        result.seconds = time.perf_counter() - start
        result.save(folder)

    try:
        result.machine = machine(device)
        torch.manual_seed(0)
        import_module(f"benchmarks.gpu_day.{SECTIONS[name].module}").run(Day(device, tiny, folder / SCRATCH, add))
        result.complete = True
    except Exception as error:
        traceback.print_exc()
        result.error = f"{type(error).__name__}: {first_line(error)}"
    result.seconds = time.perf_counter() - start
    result.save(folder)
    return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=SECTIONS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("commit")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    sys.exit(0 if run(**vars(options)).complete else 1)


if __name__ == "__main__":
    main()
