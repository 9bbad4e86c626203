"""All that only a GPU shows, in at most 8 minutes on one H100: `python benchmarks/gpu.py`.

    python benchmarks/gpu.py                 # every section that the folder has no results of, then the table
    python benchmarks/gpu.py --only d        # this section again
    python benchmarks/gpu.py --tiny          # the same code with tiny models on the CPU: that it runs, not how fast

Every section runs in a process of its own, within its time, and writes SECTION.json and SECTION.log to the folder. The
same command goes on after the last section that is complete. Weights are random and of the published sizes; nothing is
downloaded.
"""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu_day.plan import SCRATCH, SECTIONS
from benchmarks.gpu_day.results import Result, commit_of, table

ROOT = Path(__file__).resolve().parents[1]
SLOWER = 10  # times that a tiny build on a CPU may take


def has_gpu() -> bool:
    """Whether torch sees a GPU; asked in another process, since this one stays until the end."""
    asked = [sys.executable, "-c", "import sys, torch; sys.exit(not torch.cuda.is_available())"]
    return subprocess.run(asked, capture_output=True).returncode == 0


def measure(name: str, folder: Path, commit: str, tiny: bool, seconds: float) -> Result:
    """Runs a section in a process of its own, and kills it with all that it started when its time is up."""
    before = Result.load(folder, name)
    command = [sys.executable, "-m", "benchmarks.gpu_day.section", name, str(folder), commit, *["--tiny"] * tiny]
    start = time.monotonic()
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        try:
            problem = f"the process ended with code {process.wait(seconds)}, see {name}.log"
        except subprocess.TimeoutExpired:
            problem = f"stopped after {seconds:.0f} s, see {name}.log"
        finally:
            kill_group(process)
    result = Result.load(folder, name)
    if result is None or result == before:  # it never came to its first row
        result = Result(name, tiny, commit, seconds=time.monotonic() - start)
    if not result.complete:
        result.error = result.error or problem
        result.save(folder)
    return result


def kill_group(process: "subprocess.Popen[bytes]") -> None:
    """Ends a process and whatever it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def is_done(name: str, folder: Path, commit: str, tiny: bool) -> bool:
    """Whether there is a complete result of this code."""
    known = Result.load(folder, name)
    return known is not None and known.complete and (known.commit, known.tiny) == (commit, tiny)


def run(folder: Path, only: Sequence[str], tiny: bool) -> list[Result]:
    """Measures what is missing, or what is asked for; returns all results that the folder then has."""
    folder.mkdir(parents=True, exist_ok=True)
    commit, start, allowed = commit_of(ROOT), time.monotonic(), 0.0
    for name in only or SECTIONS:
        section = SECTIONS[name]
        if not only and is_done(name, folder, commit, tiny):
            print(f"({name}) {section.title}: done before", flush=True)
            continue
        allowed += section.seconds * (SLOWER if tiny else 1)
        print(f"({name}) {section.title} ...", flush=True)
        result = measure(name, folder, commit, tiny, allowed - (time.monotonic() - start))
        print(f"    {result.seconds:.0f} s{f', {result.error}' if result.error else ''}", flush=True)
    if all(is_done(name, folder, commit, tiny) for name in SECTIONS):
        shutil.rmtree(folder / SCRATCH, ignore_errors=True)
    return [found for name in SECTIONS if (found := Result.load(folder, name))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="tiny models on the CPU")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=[], metavar="SECTION", help="a to g")
    parser.add_argument("--out", type=Path, help="folder for the results; outputs/benchmarks/gpu, or gpu-tiny")
    options = parser.parse_args()
    if not options.tiny and not has_gpu():
        print("no CUDA GPU: nothing is measured (--tiny runs tiny models on the CPU)")
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that no section outlives this
    folder = options.out or ROOT / f"outputs/benchmarks/gpu{'-tiny' if options.tiny else ''}"
    results = run(folder.resolve(), options.only, options.tiny)
    print(f"\n{table(results)}\n\nwritten to {folder}")
    sys.exit(0 if all(result.complete for result in results) else 1)


if __name__ == "__main__":
    main()
