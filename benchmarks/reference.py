"""Speed on a CPU: ours beside the published network, and the commands, as ratios that other machines can compare.

    export OMP_WAIT_POLICY=PASSIVE             # as the jobs set it: two threads do not spin while they wait
    python benchmarks/reference.py             # measures, and says what is slower than benchmarks/ratios.json
    python benchmarks/reference.py --store     # replaces that file
    python benchmarks/reference.py --only step,start --turns 3

What is compared takes turns, and a ratio is the median over turns: other work on the machine slows both sides. One
thread is timed in processor time, two in wall time. Commands are timed in user time, children included; their yardstick
is `import torch`. Sharing a collection is wall time. Exit code 1 if a ratio is worse than the stored one by more than
the tolerance.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.nn import functional as F

from benchmarks.published import EMBEDS, LATENT, SWIN, PublishedNPNet, PublishedStep
from golden_noise.npnet import NPNet

STORED = Path(__file__).with_name("ratios.json")
HERE = Path(__file__).parents[1]
TOLERANCE = 1.25  # of one run against another: what a machine with other work does to a median
COMMANDS = ("collect", "train", "evaluate", "generate", "app", "pairs", "convert", "sweep", "config")
YARDSTICK = ["-c", "import torch"]
PAIRS = 1024  # of a collection; from 1,000 on it takes a process for each core
Measured = Iterator[tuple[str, float, str]]  # name, ratio, both sides in words


def alternate(turns: int, ours: Callable[[], float], other: Callable[[], float]) -> tuple[float, str]:
    """The median ratio of ours to the other's seconds over turns, each of both, and the medians of both."""
    pairs = [(ours(), other()) for _ in range(turns)]
    medians = [statistics.median(column) for column in zip(*pairs, strict=True)]
    return statistics.median(a / b for a, b in pairs), f"{medians[0]:.3g} s / {medians[1]:.3g} s"


def timed(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> Callable[[], float]:
    """Seconds of a call."""

    def seconds() -> float:
        begin = clock()
        work()
        return clock() - begin

    return seconds


def user_time(*arguments: str) -> Callable[[], float]:
    """Seconds of user code that a Python process and its children take."""

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        subprocess.run([sys.executable, *arguments], cwd=HERE, check=True, capture_output=True)
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before

    return seconds


def our_step(network: NPNet, noise: torch.Tensor, golden: torch.Tensor, embeds: torch.Tensor) -> Callable[[], object]:
    """One training step as ours takes it: every pair with the embedding of its own prompt."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        F.mse_loss(network(noise, embeds), golden).backward()
        optimizer.step()

    return step


def step(turns: int) -> Measured:
    """A training step of 8 pairs, and the network on one noise; encoding prompts is left out on both sides."""
    noise, golden, embeds = torch.randn(8, *LATENT), torch.randn(8, *LATENT), torch.randn(8, *EMBEDS)
    published = PublishedStep(PublishedNPNet(), lambda _: embeds[:1])
    for threads, clock in ((1, time.process_time), (2, time.perf_counter)):
        torch.set_num_threads(threads)
        theirs = timed(lambda: published(noise, golden, ["a"]), clock)
        for form, attention in (("the same form", False), ("the default form", True)):
            ours = timed(our_step(our_network(attention), noise, golden, embeds), clock)
            yield f"training step, {form}, {threads} threads", *alternate(turns, ours, theirs)
        sides = (
            once(network, noise[:1], embeds[:1]) for network in (our_network(True), PublishedNPNet(attention=True))
        )
        yield f"one noise, {threads} threads", *alternate(3 * turns, *(timed(side, clock) for side in sides))


def our_network(attention: bool) -> NPNet:
    """The paper's network, with the attention of the published weights or without, as the published code trains."""
    return NPNet(LATENT, EMBEDS, attention=attention, backbone=SWIN, backbone_size=224)


def once(network: torch.nn.Module, noise: torch.Tensor, embeds: torch.Tensor) -> Callable[[], object]:
    """A call without gradients, after a first one."""
    call = torch.no_grad()(lambda: network.eval()(noise, embeds))
    call()
    return call


def start(turns: int) -> Measured:
    """Help of every command, and the first image, in imports of torch."""
    with tempfile.TemporaryDirectory() as folder:
        for command in COMMANDS:
            ours = user_time("-m", "golden_noise", command, "--help")
            yield f"{command} --help", *alternate(turns, ours, user_time(*YARDSTICK))
        draw = user_time("generate.py", "prompt=a red circle", f"paths.outputs={folder}")
        yield "generate to the first image", *alternate(turns, draw, user_time(*YARDSTICK))


def evaluation(turns: int) -> Measured:
    """An evaluation of 200 pairs of the miniature, in imports of torch."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["evaluation.methods=[standard,npnet]", "prompts.count=200", f"paths.outputs={folder}", "logger=null"]
        ours = user_time("evaluate.py", *options)
        yield "evaluation of 200 pairs", *alternate(turns, ours, user_time(*YARDSTICK))


def collection(turns: int) -> Measured:
    """A collection of the miniature: a process for each of two cores against one process on one core."""
    with tempfile.TemporaryDirectory() as folder:
        number = 0

        def collect(cores: set[int]) -> None:
            nonlocal number
            number += 1
            options = [f"prompts.count={PAIRS}", "collection.shard_size=128", f"data_dir={folder}/{number}"]
            command = [sys.executable, "collect.py", "experiment=shapes", *options]
            subprocess.run(
                command,
                cwd=HERE,
                check=True,
                capture_output=True,
                preexec_fn=lambda: os.sched_setaffinity(0, cores),
            )

        own = sorted(os.sched_getaffinity(0))
        if len(own) < 2:
            return
        one, both = {own[0]}, {*own[:2]}
        sides = (timed(lambda: collect(both)), timed(lambda: collect(one)))
        yield "collection on two cores", *alternate(turns, *sides)


SECTIONS = {"start": start, "step": step, "evaluation": evaluation, "collection": collection}


def worse(ratios: dict[str, float], stored: dict[str, float], tolerance: float) -> list[str]:
    """What is slower than it was by more than the tolerance, a line each."""
    return [
        f"{name}: {ratio:.2f}, stored {stored[name]:.2f}"
        for name, ratio in ratios.items()
        if name in stored and ratio > stored[name] * tolerance
    ]


def main() -> None:
    """Measures, prints a table, and compares it with the stored one, or stores it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SECTIONS), metavar="A,B", help="of %(default)s")
    parser.add_argument("--turns", type=int, default=5, metavar="N", help="of each comparison (%(default)s)")
    parser.add_argument("--store", action="store_true", help=f"write the ratios to {STORED.name}")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, metavar="X", help="(%(default)s)")
    options = parser.parse_args()
    stored = json.loads(STORED.read_text()) if STORED.exists() else {}
    ratios = {}
    print("| what | ratio | stored | ours / the other |\n| --- | --- | --- | --- |")
    for section in options.only.split(","):
        for name, ratio, words in SECTIONS[section](options.turns):
            ratios[name] = round(ratio, 3)
            print(f"| {name} | {ratio:.2f} | {stored.get(name, '–')} | {words} |", flush=True)
            if options.store:
                STORED.write_text(json.dumps(stored | ratios, indent=2) + "\n")
    if not options.store and (slower := worse(ratios, stored, options.tolerance)):
        sys.exit("slower than stored:\n" + "\n".join(slower))


if __name__ == "__main__":
    main()
