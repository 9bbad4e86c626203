"""The images of an evaluation: drawn here from every method's noise, or read from folders."""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from golden_noise.errors import UserError
from golden_noise.evaluation.choices import evaluated_methods
from golden_noise.evaluation.constant import Constant, Learning, choose_constant, learning_prompts
from golden_noise.evaluation.folders import Folders
from golden_noise.evaluation.gaussianity import noise_measures
from golden_noise.evaluation.shuffling import other_prompts
from golden_noise.generation.drawing import Drawing
from golden_noise.generation.methods import Methods, predicting, searching
from golden_noise.generation.names import (
    BEST_OF_N,
    CONSTANT,
    GUIDED,
    NETWORK_CONTROLS,
    NPNET,
    SEARCH,
    SHUFFLED,
    STANDARD,
)
from golden_noise.generation.network import load_npnet
from golden_noise.generation.provenance import drawing_settings
from golden_noise.images import TEXT, about
from golden_noise.metrics.base import Metric
from golden_noise.npnet import AnyNPNet
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.lazy import LazyPipeline
from golden_noise.prompts import Prompt
from golden_noise.prompts.job import announce
from golden_noise.search.best_of_n import BestOfN
from golden_noise.search.predicted import networks_in
from golden_noise.search.rescale import Rescale


class DrawnImages(Drawing):
    """The images of one evaluation. Every PNG records its prompt, seed, cost and the measures of its noise."""

    constant: Constant | None = None  # how the control of that name was chosen, if it is run

    def path(self, method: str, position: int) -> Path:
        """The image of one item."""
        return self.folder / f"images/{method}/{self.prompts[position].index:06d}.png"

    def texts(
        self, method: str, positions: range, latents: Tensor, noise: Tensor, calls: float
    ) -> list[dict[str, str]]:
        """See `Drawing`."""
        measures = noise_measures(latents, noise)
        texts = []
        for row, prompt in enumerate(self.prompts[position] for position in positions):
            own = {name: float(values[row]) for name, values in measures.items()}
            facts = {"prompt": prompt.text, "seed": prompt.seed, "noise": own, "calls": calls}
            texts.append({TEXT: json.dumps(facts)})
        return texts

    def calls(self) -> dict[str, float]:
        """Denoiser calls per image of every method, but of those with images that an earlier version drew."""
        found: dict[str, list[Any]] = {m: [facts.get("calls") for facts in self.facts[m]] for m in self.methods}
        return {method: float(np.mean(calls)) for method, calls in found.items() if None not in calls}

    @cached_property
    def facts(self) -> dict[str, list[dict[str, Any]]]:
        """What the PNGs of every method say; for when all are drawn."""
        count = range(len(self.prompts))
        return {method: [about(self.path(method, i)) for i in count] for method in self.methods}

    def noise_measures(self) -> dict[str, dict[str, np.ndarray]]:
        """Measures of every item's noise: measure -> method -> (N,)."""
        rows = {method: [facts["noise"] for facts in self.facts[method]] for method in self.methods}
        names = list(rows[self.methods[0]][0])
        return {name: {m: np.array([row[name] for row in rows[m]]) for m in self.methods} for name in names}


ImageSource = DrawnImages | Folders


def image_source(
    config: DictConfig,
    npnet: AnyNPNet | None,
    pipeline: Pipeline | LazyPipeline | None,
    folder: Path,
    learning: Learning | None,
    quiet: bool,
) -> tuple[ImageSource, dict[str, Metric]]:
    """The images that are compared, and the metrics that score them: one of these may choose the noise of others.

    The arguments are those of `golden_noise.evaluation.job.evaluate`.
    """
    if config.evaluation.get("images") is not None:
        folders = image_folders(config)
        if not quiet:
            announce(folders.prompts, config.evaluation.prompts)
        return folders, instantiate(config.metric)
    prompts, others = evaluated_prompts(config)
    searched_on = learning_prompts(config, prompts, learning)
    pipeline = pipeline or LazyPipeline(config.pipeline.model)
    networks = load_networks(config, npnet, pipeline)
    metrics: dict[str, Metric] = instantiate(config.metric)
    loaded = pipeline.loaded
    if not quiet:
        announce(prompts, config.evaluation.prompts)
    constant = choose_constant(config, searched_on, loaded, metrics, quiet)
    methods = chosen_methods(config, loaded, networks, metrics, constant)
    settings = drawing_settings(config, methods.names, networks)
    if constant:
        settings[CONSTANT]["factor"] = constant.factor
    if others:
        texts = json.dumps([[prompt.text, other.text] for prompt, other in zip(prompts, others, strict=True)])
        settings[SHUFFLED]["prompts"] = {"count": len(prompts), "texts": hashlib.sha256(texts.encode()).hexdigest()}
    images = DrawnImages(methods, prompts, folder, settings, others=others, replace=npnet is not None)
    images.constant = constant
    return images, metrics


def evaluated_prompts(config: DictConfig) -> tuple[list[Prompt], list[Prompt] | None]:
    """The prompts to evaluate, and for the control `shuffled` another one for each."""
    prompts: list[Prompt] = instantiate(config.evaluation.prompts)
    return prompts, other_prompts(prompts) if SHUFFLED in evaluated_methods(config) else None


def load_networks(config: DictConfig, npnet: AnyNPNet | None, pipeline: Pipeline | LazyPipeline) -> dict[str, AnyNPNet]:
    """The networks of the chosen methods by name, `npnet` for the one under test and its controls."""
    needing = [name for name in evaluated_methods(config) if name in (NPNET, *NETWORK_CONTROLS)]
    if needing and npnet is None and config.npnet is None:
        raise UserError(
            f"pipeline={config.pipeline.name} has no NPNet of its own, which evaluation.methods needs for "
            f"{', '.join(needing)}: give npnet=FOLDER from a training run, or remove these methods"
        )
    networks = {n: load_npnet(config, source, pipeline) for n, source in config.evaluation.checkpoints.items()}
    if needing:
        networks[NPNET] = load_npnet(config, config.npnet, pipeline) if npnet is None else npnet
    return networks


def chosen_methods(
    config: DictConfig,
    pipeline: Pipeline,
    networks: Mapping[str, AnyNPNet],
    metrics: Mapping[str, Metric],
    constant: Constant | None,
) -> Methods:
    """The starting noises of all chosen methods; without a factor, `constant` is left out."""
    names = [*evaluated_methods(config), *config.evaluation.checkpoints, *config.evaluation.searches]
    extra = {name: predicting(network) for name, network in networks.items() if name != NPNET}
    settings = dict(config.evaluation.searches) | ({SEARCH: config.search} if SEARCH in names else {})
    searches = {name: instantiate(own) for name, own in settings.items()}
    extra |= {name: searching(search, pipeline) for name, search in searches.items()}
    used = [*networks.values(), *(each for search in searches.values() for each in networks_in(search, pipeline))]
    if BEST_OF_N in names:
        best_of = config.evaluation.best_of
        best = BestOfN(metrics[best_of.metric or next(iter(metrics))], best_of.count)
        extra[BEST_OF_N] = lambda noise, prompt, seeds: best.choose(noise, prompt, pipeline, seeds)
    if constant:
        extra[CONSTANT] = searching(Rescale(constant.factor), pipeline)
    names = [name for name in names if name != CONSTANT or constant]
    samplers = {}
    if GUIDED in names:
        extra[GUIDED] = lambda noise, prompt, seeds: noise
        samplers[GUIDED] = dict(config.evaluation.guided)
    return Methods(names, pipeline, networks.get(NPNET), extra, used, samplers)


def image_folders(config: DictConfig) -> Folders:
    """The images of `config.evaluation.images`; refuse a folder that is named twice, and none of standard noise."""
    folders: dict[str, Any] = dict(config.evaluation.images)
    if STANDARD not in folders:
        raise UserError(f"evaluation.images lacks '{STANDARD}': every method is compared with it")
    for (a, first), (b, second) in combinations(folders.items(), 2):
        if Path(first).expanduser().resolve() == Path(second).expanduser().resolve():
            raise UserError(
                f"evaluation.images.{a} and evaluation.images.{b} are one folder, {second}: "
                "give every method a folder of its own"
            )
    return Folders(folders, instantiate(config.evaluation.prompts))
