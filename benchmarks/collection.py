"""What collecting costs beside its models: `python benchmarks/collection.py`.

Compares whole collections of the miniature with the bare calls of its models on the same batches, in turns. Prints the
table of benchmarks/README.md.
"""

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig

from golden_noise.cli.config import job_config
from golden_noise.collecting import job as collection
from golden_noise.collecting.collector import Collector
from golden_noise.noise import sampler_generators
from golden_noise.pairs import prepare
from golden_noise.prompts import Prompt

REPEATS = 5
CASES = {
    "search alone": (1024, ["collection.select_by=null"]),
    "search, images and scores": (256, ["collection.select_by=strict"]),
}


def model_seconds(collector: Collector, units: Sequence[Sequence[Prompt]]) -> float:
    """Time of the models' calls alone; what goes into them is there already."""
    pipeline, elapsed = collector.pipeline, 0.0
    for prompts in units:
        for start in range(0, len(prompts), collector.batch_size):
            batch = prompts[start : start + collector.batch_size]
            texts, seeds = [prompt.text for prompt in batch], [prompt.seed for prompt in batch]
            noise = pipeline.draw_noise(seeds)
            begin = time.perf_counter()
            embedding = pipeline.encode(texts)
            noises = (noise, collector.search.search(noise, embedding, pipeline))
            for latents in noises if collector.selection else ():
                images = pipeline.sample(embedding, latents, generator=sampler_generators(seeds))
                for metric in collector.metrics.values():
                    metric.score(texts, images)
            elapsed += time.perf_counter() - begin
    return elapsed


def collection_seconds(config: DictConfig, units: Sequence[Sequence[Prompt]]) -> float:
    """Time of a whole collection into a new folder, after its models are loaded."""
    begin = time.perf_counter()
    prepare(Path(config.data_dir), collection.provenance(config), units)
    collection.work(config, units, quiet=True)
    return time.perf_counter() - begin


def main() -> None:
    load = collection.load_collector
    print(f"{torch.get_num_threads()} torch threads, {len(os.sched_getaffinity(0))} cores")
    print("| what a pair needs | prompts | models alone | collection | overhead |")
    print("| --- " * 5 + "|")
    for case, (count, options) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            places = [f"data_dir={folder}/pairs", f"paths.outputs={folder}"]
            config = job_config("collect", [*places, f"prompts.count={count}", "search=redenoise", *options])
            units = collection.work_units(config)
            collector = load(config, count)
            collection.load_collector = lambda *_, collector=collector: collector
            model_seconds(collector, units[:1])  # warms up
            models, wholes = [], []
            for _ in range(REPEATS):
                models.append(model_seconds(collector, units))
                wholes.append(collection_seconds(config, units))
                shutil.rmtree(config.data_dir)
        ratios = [whole / model - 1 for whole, model in zip(wholes, models, strict=True)]
        ms = [1000 * statistics.median(times) / count for times in (models, wholes)]
        print(f"| {case} | {count} | {ms[0]:.2f} ms | {ms[1]:.2f} ms | {statistics.median(ratios):+.1%} |")


if __name__ == "__main__":
    main()
