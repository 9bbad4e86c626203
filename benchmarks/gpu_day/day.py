"""What the sections share: the device, the clock, and where their figures go."""

import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.gpu_day.results import Row
from golden_noise.errors import first_line

GIB = 2**30


class Day:
    """A device to measure on.

    A measurement that fails, for want of memory or otherwise, is a row without a figure, and the others go on.

    Args:
        device: "cuda", or the CPU for tiny builds.
        tiny: whether models are tiny, so that figures say nothing and no goal is checked.
        scratch: folder for what several sections use.
        add: takes the rows.
    """

    def __init__(self, device: torch.device, tiny: bool, scratch: Path, add: Callable[[Row], None]):
        self.device, self.tiny, self.scratch, self.add = device, tiny, scratch, add
        self.is_cuda = device.type == "cuda"

    def wait(self) -> None:
        if self.is_cuda:
            torch.cuda.synchronize(self.device)

    def once(self, call: Callable[[], object]) -> float:
        """Seconds from an idle device to an idle device, by the wall clock.

        Not by CUDA events: they leave out what the CPU does last, such as the PNG file of an image.
        """
        self.wait()
        start = time.perf_counter()
        call()
        self.wait()
        return time.perf_counter() - start

    def seconds(self, call: Callable[[], object], repeats: int = 3, warm: int = 1) -> float:
        """Median time of a call, after some that do not count."""
        times = [self.once(call) for _ in range(warm + (1 if self.tiny else repeats))]
        return statistics.median(times[warm:])

    def attempt(self, what: str, figure: Callable[[], Row]) -> Row:
        """A row, or one that says why there is none."""
        problem = ""
        if self.is_cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        try:
            row = figure()
        except torch.OutOfMemoryError as error:
            problem = f"out of memory: {first_line(error)}"
        except Exception as error:  # of any library, on a machine where none of this may have run before
            problem = f"{type(error).__name__}: {first_line(error)}"
        if problem:
            print(f"{what}: {problem}", flush=True)
            row = Row(what, None, note=problem[:300])
        elif self.is_cuda:
            row.peak_GiB = torch.cuda.max_memory_allocated(self.device) / GIB
        self.release()  # the error is gone by now, and with it what its frames held
        self.add(row)
        return row

    def measure(
        self,
        what: str,
        call: Callable[[], object],
        per_second: tuple[float, str] | None = None,
        repeats: int = 3,
        warm: int = 1,
        note: str = "",
    ) -> float | None:
        """Median seconds of a call; adds them in ms, or as a rate, with the most memory in use at once, weights too.

        Args:
            per_second: how many of what a call makes, such as (64, "pairs").
        """
        taken: list[float] = []

        def figure() -> Row:
            taken.append(self.seconds(call, repeats, warm))
            if per_second is None:
                return Row(what, 1000 * taken[0], "ms", note=note)
            count, unit = per_second
            return Row(what, count / taken[0], f"{unit}/s", note=note)

        self.attempt(what, figure)
        return taken[0] if taken else None

    def goal(self, what: str, value: float, unit: str, goal: str, met: bool, note: str = "") -> None:
        """A figure that has a goal."""
        self.add(Row(what, value, unit, goal=goal, met=None if self.tiny else met, note=note))

    def release(self) -> None:
        """Give memory back that nothing holds any more."""
        gc.collect()
        if self.is_cuda:
            torch.cuda.empty_cache()
