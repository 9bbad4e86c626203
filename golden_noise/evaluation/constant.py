"""The control `constant`: noise times the one factor that does best on training prompts.

Networks trained with a squared error shrink noise, and that alone changes images: a gain that a factor reaches needs
neither a network nor a prompt. The factor is searched once and never on the evaluated prompts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from golden_noise import identity
from golden_noise.errors import UserError
from golden_noise.evaluation.cache import Cache
from golden_noise.evaluation.choices import evaluated_methods
from golden_noise.evaluation.verdict import FEW
from golden_noise.generation.names import CONSTANT
from golden_noise.metrics.base import Metric
from golden_noise.noise import LEARNING, derived_seed, sampler_generators
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.loading import model_dtype
from golden_noise.pipelines.overflow import check_images
from golden_noise.prompts import Prompt
from golden_noise.prompts.job import of_another_pipeline
from golden_noise.sharing.fabric import shared_batches

UNKNOWN = (
    "the control 'constant' was not run: no prompts to search its factor on are known. Give "
    "prompts@evaluation.constant.prompts=file evaluation.constant.prompts.path=FILE (not the evaluated ones), or "
    "evaluation.constant.factor=NUMBER"
)
Learning = Callable[[int], Sequence[Prompt]]  # at most so many prompts of a training


@dataclass(frozen=True)
class Constant:
    """A factor and how it was chosen: mean scores of `metric` by factor, over `prompts`; all None if it was given."""

    factor: float
    metric: str | None = None
    prompts: int | None = None
    scores: dict[str, float] | None = None


def learning_prompts(
    config: DictConfig, evaluated: Sequence[Prompt], learning: Learning | None = None
) -> list[Prompt] | None:
    """The prompts that choose the factor, with seeds of their own; None if no search is needed or none are known.

    There are at most `evaluation.constant.count`, and no more than a quarter of the evaluated ones, so that the search
    stays the smaller part of the work.

    Args:
        learning: gives the prompts of a training where `evaluation.constant.prompts` are the miniature's and the
            pipeline is another.
    """
    if CONSTANT not in evaluated_methods(config) or config.evaluation.constant.factor is not None:
        return None
    options = config.evaluation.constant
    count = min(options.count, max(FEW, len(evaluated) // 4))
    if options.prompts is not None and not of_another_pipeline(config, options.prompts):
        known: Sequence[Prompt] = instantiate(options.prompts)
    elif learning is not None:
        known = learning(count)
    else:
        return None
    texts = {prompt.text for prompt in evaluated}
    fresh = [prompt for prompt in known if prompt.text not in texts]
    if not fresh:
        raise UserError(
            "evaluation.constant.prompts are all evaluated too, but the factor must be chosen on others: give others, "
            "evaluation.constant.factor=NUMBER, or leave constant out of evaluation.methods"
        )
    order = np.random.default_rng(0).permutation(len(fresh))[:count]
    return [replace(fresh[i], seed=derived_seed(fresh[i].seed, LEARNING)) for i in order]


def choose_constant(
    config: DictConfig,
    prompts: Sequence[Prompt] | None,
    pipeline: Pipeline,
    metrics: Mapping[str, Metric],
    quiet: bool = False,
) -> Constant | None:
    """The given factor, or the best by the first metric; None if the control is not run or has no `prompts`.

    `evaluation.constant.cache` keeps the search for every further evaluation with this pipeline and metric.
    """
    options = config.evaluation.get("constant")
    if CONSTANT not in evaluated_methods(config) or (options.factor is None and prompts is None):
        return None
    if prompts is None:
        return Constant(float(options.factor))
    name = next(iter(metrics))
    plain: Any = OmegaConf.to_container(config, resolve=True)
    model = plain["pipeline"]["model"]
    images = identity.images(identity.model(model, model_dtype(model, config.device)))
    made_by = identity.digest(images, identity.scores(plain["metric"][name], metrics[name].version))
    cache = Cache(Path(options.cache) / f"{made_by}.jsonl")
    factors = sorted({1.0, *map(float, options.factors)})
    scores = mean_scores(pipeline, metrics[name], prompts, factors, cache, config.evaluation.batch_size, quiet)
    best = max(factors, key=lambda factor: (scores[factor], -abs(factor - 1)))  # of equals the one that changes least
    return Constant(best, name, len(prompts), {f"{factor:g}": score for factor, score in scores.items()})


def mean_scores(
    pipeline: Pipeline,
    metric: Metric,
    prompts: Sequence[Prompt],
    factors: Sequence[float],
    cache: Cache,
    batch_size: int,
    quiet: bool = False,
) -> dict[float, float]:
    """The mean score of the prompts' images for every factor of their noise, shared between processes and cached."""
    cache.path.parent.mkdir(parents=True, exist_ok=True)
    with tqdm(desc="searching the constant", unit="image", total=len(prompts) * len(factors), disable=quiet) as bar:
        for positions in shared_batches(cache.path.parent, len(prompts), batch_size, cache.path.stem):
            cache.refresh()
            part, embedding = prompts[positions.start : positions.stop], None
            texts, seeds = [prompt.text for prompt in part], [prompt.seed for prompt in part]
            for factor in factors:
                keys = _keys(factor, part)
                if cache.get(keys) is None:
                    embedding = pipeline.encode(texts) if embedding is None else embedding
                    noise = factor * pipeline.draw_noise(seeds)
                    images = pipeline.sample(embedding, noise, generator=sampler_generators(seeds))
                    check_images(images, part, f"{factor:g} times standard", pipeline.dtype)
                    cache.put(dict(zip(keys, metric.score(texts, images).double().tolist(), strict=True)))
                bar.update(len(part))
    means = {}
    for factor in factors:
        scores = cache.get(_keys(factor, prompts))
        if scores is None:
            raise UserError(f"scores are not finite with noise x {factor:g}, which the control 'constant' tries")
        means[factor] = float(np.mean(scores))
    return means


def _keys(factor: float, prompts: Sequence[Prompt]) -> list[str]:
    return [identity.digest(factor, prompt.text, prompt.seed) for prompt in prompts]
