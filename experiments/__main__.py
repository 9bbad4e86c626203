"""Run the studies, several at a time: `python -m experiments [NAME ...] [--workers 2] [--smoke]`.

Killed, the same command goes on where it was. Each study writes its tables and figures into its own folder here, and
what it says on the way into `outputs/experiments/NAME.log`.
"""

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# In this order, so that the longest begins first and studies that need another's networks find them.
STUDIES = (
    "guidance_free",
    "frontier",
    "hacking",
    "objectives",
    "distribution",
    "first_light",
    "data",
    "variants",
    "redenoise",
    "searches",
    "transfer",
    "best_of_n",
    "noise",
    "sizes",
)
LOGS = Path("outputs/experiments")


def run(name: str, arguments: list[str], threads: int) -> bool:
    """Run one study in a process of its own, and say how it ended."""
    LOGS.mkdir(parents=True, exist_ok=True)
    log, start = LOGS / f"{name}.log", time.monotonic()
    print(f"{name}: started, see {log}", flush=True)
    with log.open("a") as file:
        command = [sys.executable, "-m", f"experiments.{name}.run", *arguments]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment).returncode
    minutes = (time.monotonic() - start) / 60
    print(f"{name}: {'done' if code == 0 else f'failed with exit code {code}'} after {minutes:.0f} min", flush=True)
    return code == 0


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(STUDIES))
    parser.add_argument("--workers", type=int, default=2, help="studies at a time, each with its share of the cores")
    parser.add_argument("--smoke", action="store_true", help="a handful of prompts, in minutes, under outputs/smoke")
    options = parser.parse_args(arguments)
    if unknown := {*options.names} - {*STUDIES}:
        parser.error(f"no study {', '.join(sorted(unknown))}; there are {', '.join(STUDIES)}")
    threads = max(1, len(os.sched_getaffinity(0)) // options.workers)
    passed = ["--smoke"] if options.smoke else []
    with ThreadPoolExecutor(options.workers) as pool:
        done = list(pool.map(lambda name: run(name, passed, threads), options.names or STUDIES))
    sys.exit(0 if all(done) else 1)


if __name__ == "__main__":
    main(sys.argv[1:])
