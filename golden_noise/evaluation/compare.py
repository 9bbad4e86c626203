"""The evaluate job: images of the same prompts and seeds from every method's noise, scored and compared."""

import platform
import shlex
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor
from tqdm import tqdm

import golden_noise
from golden_noise.errors import UserError
from golden_noise.evaluation import report, results
from golden_noise.evaluation.methods import METHODS, Methods
from golden_noise.evaluation.scores import CONTROLS, NPNET, Scores, image_path
from golden_noise.images import from_pil, save_png, to_pil
from golden_noise.metrics.base import Metric
from golden_noise.noise import draw_noise, sampler_generators
from golden_noise.npnet import NPNet
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.loading import first_line, pick_device
from golden_noise.prompts import Prompt
from golden_noise.weights import locate

LIBRARIES = ("torch", "diffusers", "transformers", "lightning", "timm")


def evaluate(config: DictConfig, npnet: NPNet | None = None, folder: Path | None = None) -> dict[str, Any]:
    """Compare starting noises and write images, `results.json`, `results.csv` and `report.html`.

    Args:
        npnet: the network to judge; loaded from `config.npnet` if not given.
        folder: where to write, `config.folder` by default. Images that are already there are not drawn again, so a
            killed evaluation goes on.

    Returns:
        The content of `results.json`.

    Raises:
        UserError: unknown method, no prompts, or no NPNet where one is needed.
    """
    names = check_methods(list(config.evaluation.methods))
    prompts: list[Prompt] = instantiate(config.evaluation.prompts)
    folder = Path(config.folder) if folder is None else folder
    if npnet is None and {NPNET, *CONTROLS} & {*names}:
        npnet = load_npnet(config)
    pipeline: Pipeline = instantiate(config.pipeline.model)
    methods = Methods(names, pipeline, instantiate(config.search), npnet)
    comparison = Comparison(pipeline, methods, instantiate(config.metric), prompts, folder)

    start = time.perf_counter()
    scores = comparison.run(config.evaluation.batch_size)
    timings = {"images_and_scores_s": round(time.perf_counter() - start, 1)}
    plain: Any = OmegaConf.to_container(config, resolve=True)
    summary = results.summarise(scores, plain, versions(), timings, shlex.join(["python", *sys.argv]))
    results.write(folder, scores, summary)
    report.write_report(folder, scores, summary, comparison.image)
    results.print_table(summary)
    print(f"report: {(folder / 'report.html').resolve()}")
    return summary


def check_methods(names: list[str]) -> list[str]:
    for name in names:
        if name not in METHODS:
            raise UserError(f"evaluation.methods: unknown method {name!r}, choose from {', '.join(METHODS)}")
    return names


def load_npnet(config: DictConfig) -> NPNet:
    """Load `config.npnet`, a folder written by training, and check that it fits the pipeline.

    Raises:
        UserError: there is none, or it was made for other shapes.
    """
    if config.npnet is None:
        raise UserError(
            f"pipeline={config.pipeline.name} has no NPNet of its own: give npnet=FOLDER from a training run"
        )
    place = locate(config.npnet, "npnet")
    try:
        npnet = NPNet.from_pretrained(place)
    except OSError as error:
        raise UserError(
            f"no NPNet in {config.npnet} ({first_line(error)}): give npnet=FOLDER from a training run"
        ) from error
    for name in ("latent_shape", "embeds_shape"):
        have, want = tuple(getattr(npnet, name)), tuple(config.pipeline[name])
        if have != want:
            raise UserError(
                f"the NPNet in {config.npnet} has {name} {have}, pipeline={config.pipeline.name} needs {want}"
            )
    return npnet.to(pick_device(config.device))


class Comparison:
    """Draws and scores the images of one evaluation."""

    def __init__(
        self,
        pipeline: Pipeline,
        methods: Methods,
        metrics: dict[str, Metric],
        prompts: list[Prompt],
        folder: Path,
    ):
        self.pipeline, self.methods, self.metrics = pipeline, methods, metrics
        self.prompts, self.folder = prompts, folder
        self.others = other_prompts(prompts) if "shuffled" in methods.names else prompts

    def run(self, batch_size: int) -> Scores:
        """Scores of every image, on the same items for every method and metric."""
        for name in self.methods.names:
            (self.folder / "images" / name).mkdir(parents=True, exist_ok=True)
        columns: dict[tuple[str, str], list[Tensor]] = {}
        with tqdm(desc="evaluating", unit="image", total=len(self.prompts) * len(self.methods.names)) as bar:
            for start in range(0, len(self.prompts), batch_size):
                texts = [prompt.text for prompt in self.prompts[start : start + batch_size]]
                for method, images in self._images(start, start + batch_size):
                    for name, metric in self.metrics.items():
                        columns.setdefault((name, method), []).append(metric.score(texts, images))
                    bar.update(len(texts))
        values = {
            metric: {method: torch.cat(columns[metric, method]).double().numpy() for method in self.methods.names}
            for metric in self.metrics
        }
        items = [
            {"index": p.index, "prompt": p.text, "seed": p.seed, "task": p.tags.get("task", "")} for p in self.prompts
        ]
        return Scores(items, self.methods.names, list(self.metrics), values)

    def _images(self, start: int, end: int) -> Iterator[tuple[str, Tensor]]:
        """Images (B, 3, height, width) of each method for a range of prompts, rounded to 8 bits as they are saved."""
        prompts, others = self.prompts[start:end], self.others[start:end]
        seeds = [prompt.seed for prompt in prompts]
        paths = {name: [self.folder / image_path(name, p.index) for p in prompts] for name in self.methods.names}
        missing = [name for name in self.methods.names if not all(path.exists() for path in paths[name])]
        embedding = self.pipeline.encode([prompt.text for prompt in prompts])
        noises: dict[str, Tensor] = {}
        if missing:
            noise = draw_noise(seeds, self.pipeline.latent_shape)
            other_embedding = self.pipeline.encode([prompt.text for prompt in others])
            noises = self.methods.noises(noise, embedding, other_embedding, seeds)
        for name in self.methods.names:
            if name in missing:
                drawn = self.pipeline.sample(embedding, noises[name], generator=sampler_generators(seeds))
                for image, path in zip(to_pil(drawn), paths[name], strict=True):
                    save_png(image, path)
            yield name, from_pil([Image.open(path) for path in paths[name]])

    def image(self, method: str, position: int) -> Image.Image:
        """The saved image of one item."""
        return Image.open(self.folder / image_path(method, self.prompts[position].index))


def other_prompts(prompts: list[Prompt]) -> list[Prompt]:
    """For every prompt one with another text, in a fixed random order.

    Raises:
        UserError: all prompts are the same.
    """
    texts = np.array([prompt.text for prompt in prompts])
    if len(set(texts)) < 2:
        raise UserError("the method 'shuffled' needs at least two different prompts: add prompts or leave it out")
    order = np.random.default_rng(0).permutation(len(prompts))
    while (same := np.flatnonzero(texts[order] == texts)).size:
        # Send every prompt that met itself on to the next place; rotating all of them keeps each used once.
        swap = (same + 1 + np.arange(same.size)) % len(prompts)
        for i, j in zip(same, swap, strict=True):
            order[i], order[j] = order[j], order[i]
    return [prompts[i] for i in order]


def versions() -> dict[str, str]:
    """Versions of what the results depend on."""
    found = {name: version(name) for name in LIBRARIES}
    return {"golden-noise": golden_noise.__version__, "python": platform.python_version(), **found}
