"""What single optimisations gain, each beside the way that it replaced: `python benchmarks/gains.py`.

Both ways take turns in one run, and a ratio is the median over turns. Prints a table of benchmarks/README.md.
"""

import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from hydra.utils import instantiate
from scipy.stats import wilcoxon

from benchmarks.reference import Measured, alternate, timed
from golden_noise.cli.config import job_config
from golden_noise.evaluation.statistics import signed_rank_test
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.prompt_embedding import PromptEmbedding
from golden_noise.search.full_inversion import FullInversion

TURNS = 7
BUSY = 1  # process per core that takes whatever it gets


def miniature() -> Pipeline:
    """The bundled pipeline on one thread."""
    torch.set_num_threads(1)
    return instantiate(job_config("collect", ["device=cpu"]).pipeline.model)


def lookups() -> Measured:
    """The denoiser's device and dtype are known, instead of asked of every module at every use."""
    pipeline, search = miniature(), FullInversion(steps=4)
    known = Pipeline.device, Pipeline.dtype
    asked = property(lambda self: self.pipe._execution_device), property(lambda self: self.denoiser.dtype)
    for count in (64, 1):
        noise = torch.randn(count, *pipeline.latent_shape)
        embedding = pipeline.encode(["a red circle"] * count)

        def searching(
            ways: tuple[object, object], noise: torch.Tensor = noise, embedding: PromptEmbedding = embedding
        ) -> Callable[[], object]:
            def work() -> None:
                Pipeline.device, Pipeline.dtype = ways  # type: ignore[assignment]
                try:
                    search.search(noise, embedding, pipeline)
                finally:
                    Pipeline.device, Pipeline.dtype = known  # type: ignore[method-assign]

            return work

        searching(known)()  # warms up
        ways = (timed(searching(way), time.process_time) for way in (known, asked))
        yield f"device and dtype, full_inversion of {count}", *alternate(TURNS, *ways)


def exact_test() -> Measured:
    """Wilcoxon's test of 13 changes with ties, all signs in one call instead of one call for each."""
    changes = np.array([1, 1, -1, 2, 2, -2, 3, 3, -3, 4, 4, -4, 5.0])
    assert np.isclose(signed_rank_test(changes), wilcoxon(changes).pvalue)
    tests = (lambda: signed_rank_test(changes), lambda: wilcoxon(changes))
    ways = (timed(test, time.process_time) for test in tests)
    yield "Wilcoxon's test, 13 tied changes", *alternate(TURNS, *ways)


CALLS = """
import time, torch
from benchmarks.gains import miniature
pipeline = miniature()
torch.set_num_threads(2)
noise = torch.randn(16, *pipeline.latent_shape)
embedding = pipeline.encode(["a red circle"] * 16)
pipeline.generate(noise, embedding)
begin = time.perf_counter()
pipeline.generate(noise, embedding)
print(time.perf_counter() - begin)
"""


def waiting() -> Measured:
    """Two threads that sleep while they wait for each other, on an idle and on a busy machine."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}

    def drawing(**policy: str) -> Callable[[], float]:
        def seconds() -> float:
            command = [sys.executable, "-c", CALLS]
            return float(subprocess.run(command, env=clean | policy, check=True, capture_output=True, text=True).stdout)

        return seconds

    for busy in (0, BUSY):
        others = [
            subprocess.Popen([sys.executable, "-c", "while True: pass"])
            for _ in range(busy * len(os.sched_getaffinity(0)))
        ]
        try:
            ratio = alternate(3, drawing(OMP_WAIT_POLICY="PASSIVE"), drawing())
        finally:
            for other in others:
                other.kill()
        yield f"16 images with two threads that sleep, beside {busy} busy process per core (wall time)", *ratio


def main() -> None:
    """Prints the table."""
    warnings.simplefilter("ignore")
    print("| what | ratio | now / before |\n| --- | --- | --- |")
    for section in (exact_test, lookups, waiting):
        for what, ratio, words in section():
            print(f"| {what} | {ratio:.2f} | {words} |", flush=True)


if __name__ == "__main__":
    main()
