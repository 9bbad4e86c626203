"""(e) Collecting by batch size: pairs per hour against one at a time."""

from functools import partial

from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.results import Row
from benchmarks.models import few_steps, pickscore, sdxl
from golden_noise.collecting.collector import Collector
from golden_noise.collecting.selection import Selection
from golden_noise.metrics.base import Metric
from golden_noise.pairs import NoisePair
from golden_noise.pipelines.sdxl import SDXLPipeline
from golden_noise.prompts import Prompt
from golden_noise.search.redenoise import Redenoise

EVERY = 1_000_000  # failures that are taken: what images of random weights look like does not matter


def run(day: Day) -> None:
    pipeline = sdxl(day.device, day.tiny)
    compare(day, "search alone", pipeline, {}, (1, 2) if day.tiny else (1, 2, 4, 8, 16))
    try:
        metric = pickscore(day.scratch / "pickscore", day.device, day.tiny, "float32" if day.tiny else "float16")
    except Exception as error:
        day.add(Row("search, images in 4 steps, PickScore", None, note=f"no metric: {error}"[:300]))
        return
    compare(day, "search, images in 4 steps, PickScore", few_steps(pipeline), {"pickscore": metric}, (1, 4, 8))


def compare(day: Day, name: str, pipeline: SDXLPipeline, metrics: dict[str, Metric], sizes: tuple[int, ...]) -> None:
    """Pairs per hour of each batch size, and the best of them against the first."""
    rates: dict[int, float] = {}
    for size in sizes:
        what = f"{name}, batch {size}"
        day.attempt(what, partial(timed, day, what, pipeline, metrics, size, rates))
    if sizes[0] in rates:
        best = max(rates, key=lambda size: rates[size])
        ratio = rates[best] / rates[sizes[0]]
        day.goal(f"{name}, best batch against 1", ratio, "x", "≥ 2 x", ratio >= 2, f"collection.batch_size={best}")


def timed(
    day: Day, what: str, pipeline: SDXLPipeline, metrics: dict[str, Metric], size: int, rates: dict[int, float]
) -> Row:
    """Pairs per hour of a collector, without the shards' files."""
    selection = Selection.parse("pickscore", 0.0, metrics.keys()) if metrics else None
    collector = Collector(pipeline, Redenoise(10), metrics, selection, size, {}, EVERY)
    count = max(size, 2)
    prompts = [Prompt(i, f"a photo of object {i}", i) for i in range(count)]
    collected = [result for results in collector.results(prompts[:size]) for result in results]  # warms up
    seconds = day.seconds(lambda: [*collector.results(prompts)], repeats=2, warm=0)
    good = sum(isinstance(result, NoisePair) for result in collected)
    if good < len(collected):  # a batch that failed was collected again by halves, and its images were not scored
        return Row(what, None, note=f"{len(collected) - good} of {len(collected)} failed: {collected[-1]}"[:300])
    rates[size] = 3600 * count / seconds
    return Row(what, rates[size], "pairs/h")
