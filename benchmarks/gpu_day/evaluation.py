"""(g) Evaluation: images per second, drawn in four steps, saved as PNG files and scored by PickScore."""

import shutil

import torch

from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.results import Row
from benchmarks.models import build_npnet, few_steps, pickscore, sdxl
from golden_noise.evaluation.measuring import Measurement
from golden_noise.evaluation.sources import DrawnImages
from golden_noise.generation.methods import Methods
from golden_noise.images import save_png, to_pil
from golden_noise.prompts import Prompt

METHODS = ["standard", "npnet"]


def run(day: Day) -> None:
    pipeline = few_steps(sdxl(day.device, day.tiny))
    npnet = build_npnet(day.tiny).to(day.device).eval()
    metric = pickscore(day.scratch / "pickscore", day.device, day.tiny)
    count = 2 if day.tiny else 16
    prompts = [Prompt(i, f"a photo of object {i}", i) for i in range(count)]
    folder = day.scratch / "evaluation"
    images = len(METHODS) * count, "images"
    for batch in (1, 2) if day.tiny else (4, 8):
        shutil.rmtree(folder, ignore_errors=True)
        source = DrawnImages(Methods(METHODS, pipeline, npnet), prompts, folder, {name: {} for name in METHODS})
        parts = [range(start, min(start + batch, count)) for start in range(0, count, batch)]

        def draw(parts: list[range] = parts, source: DrawnImages = source) -> None:
            for part in parts:
                source.draw(part)

        drawn = day.measure(f"drawing in 4 steps, batch {batch}", draw, images, repeats=1, warm=0)
        measurement = Measurement(source, {"pickscore": metric}, {}, folder)
        scored = day.measure(
            f"scoring, batch {batch}",
            lambda measurement=measurement, batch=batch: measurement.measure(batch, quiet=True),  # type: ignore[misc]
            images,
            repeats=1,
            warm=0,
        )
        if drawn and scored:
            day.add(Row(f"drawing and scoring, batch {batch}", images[0] / (drawn + scored), "images/s"))
    encoding(day, pipeline.height)


def encoding(day: Day, side: int) -> None:
    """What the PNG files take of it, on one core."""
    (image,) = to_pil(torch.rand(1, 3, side, side))
    day.measure(f"a PNG file of {side} x {side} noise", lambda: save_png(image, day.scratch / "image.png"))
