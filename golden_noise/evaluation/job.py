"""The evaluate job: images of the same prompts and seeds from every method's noise, scored and compared."""

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from golden_noise.evaluation import report, results
from golden_noise.evaluation.choices import evaluated_methods
from golden_noise.evaluation.constant import UNKNOWN, Learning
from golden_noise.evaluation.gallery import image_table
from golden_noise.evaluation.measuring import Measurement
from golden_noise.evaluation.scores import Scores
from golden_noise.evaluation.sources import DrawnImages, evaluated_prompts, image_source
from golden_noise.generation.names import CONSTANT
from golden_noise.generation.network import trained_folder
from golden_noise.generation.provenance import versions
from golden_noise.images import read_image
from golden_noise.invocation import arguments, words
from golden_noise.metrics.limits import prompts_cut
from golden_noise.npnet import AnyNPNet
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.lazy import LazyPipeline
from golden_noise.shapes.metric import check_captions
from golden_noise.sharing.claims import locked
from golden_noise.sharing.fabric import launch
from golden_noise.sharing.helpers import helpers, is_small, one_thread
from golden_noise.tracking.loggers import begin_run, run_loggers, wandb_run
from golden_noise.tracking.wandb import log_in, report_weights_used


def evaluate_job(config: DictConfig) -> None:
    """The evaluate job: `evaluate` in as many processes as `config.fabric` says, reported in a run of its own."""
    log_in(config)
    check_prompts(config)  # before other processes report the same
    fabric = launch(config)
    quiet = not fabric.is_global_zero
    find_loggers = cache(partial(begin_run, config))
    with sharing(config, help_to_evaluate) if fabric.world_size == 1 else one_thread(config):
        evaluate(config, find_loggers=find_loggers, quiet=quiet)
    if quiet:
        return
    if run := wandb_run(find_loggers()):
        report_weights_used(run, trained_folder(config.npnet))
    for logger in run_loggers(find_loggers()):
        logger.finish()


def sharing(config: DictConfig, task: Callable[..., None], *arguments: Any) -> AbstractContextManager[None]:
    """Further processes that draw and score the same images by a task; see `helpers`."""
    if config.evaluation.get("images") is not None or not is_small(config):
        return nullcontext()
    count, size = len(instantiate(config.evaluation.prompts)), config.evaluation.batch_size
    return helpers(config, count * len(evaluated_methods(config)), -(-count // size), task, *arguments)


def help_to_evaluate(config: DictConfig) -> None:
    """Take part in an `evaluate` of another process."""
    evaluate(config, quiet=True)


def check_prompts(config: DictConfig) -> None:
    """Read the prompts of an evaluation, so that a mistake is reported before any model is loaded or trained."""
    if config.evaluation.get("images") is None:
        prompts, _ = evaluated_prompts(config)
        check_captions(config.metric, [prompt.text for prompt in prompts])


def evaluate(
    config: DictConfig,
    npnet: AnyNPNet | None = None,
    folder: Path | None = None,
    pipeline: Pipeline | LazyPipeline | None = None,
    find_loggers: Callable[[], Sequence[Logger]] = tuple,
    learning: Learning | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Compare starting noises and write images, `results.json`, `results.csv` and `report.html`.

    The images are drawn here, or read from the folders of `config.evaluation.images`. An interrupted evaluation keeps
    its images and scores, and ends with the same results. Several processes share the work.

    Args:
        npnet: the network to judge, which replaces the images of an older one; `config.npnet` by default.
        folder: where to write, `config.folder` by default.
        pipeline: the pipeline of `config`, if the caller has it already.
        find_loggers: gives the loggers to report to; called when there are results.
        learning: gives prompts of the training for the control `constant`; see `learning_prompts`.
        quiet: print nothing and write no results, as all processes of a job but the first.

    Returns:
        The content of `results.json`; nothing where this process wrote none.

    Raises:
        UserError: no prompts, no NPNet where one is needed, no other prompts where controls need them, images of other
            settings, or folders that do not match.
    """
    folder = Path(config.folder) if folder is None else folder
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    source, metrics = image_source(config, npnet, pipeline, folder, learning, quiet)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    measurement = Measurement(source, metrics, plain["metric"], folder)
    if quiet:
        measurement.measure(config.evaluation.batch_size, quiet)
        return {}
    scores = measured(config, measurement)
    summary = results.summarise(scores, plain, versions(), shlex.join([*words(), *arguments()]))

    def image(method: str, position: int) -> Image.Image:
        return read_image(source.path(method, position))

    with locked(folder):  # the same command may have been started twice
        results.write(folder, scores, summary)
        report.write_report(folder, scores, summary, image)
    results.print_table(summary)
    print(f"report: {(folder / 'report.html').resolve()} ({time.perf_counter() - start:.0f} s)")
    for logger in run_loggers(find_loggers()):
        logger.log_table("eval/images", *image_table(scores, image))
        logger.log_figures(results.figures(summary))
    return summary


def optimised(config: DictConfig) -> set[str]:
    """The metrics that the evaluated network was trained to raise, as far as its folder or the train job says."""
    folder = trained_folder(config.get("npnet")) if config.job != "train" else None
    training = folder / "training.yaml" if folder else None
    settings: Any = OmegaConf.load(training) if training and training.is_file() else config
    return {*(OmegaConf.select(settings, "objective.reward.weights") or {})}


def measured(config: DictConfig, measurement: Measurement) -> Scores:
    """The scores of all images, with the measures of the starting noises and remarks."""
    source = measurement.source
    cuts = prompts_cut(measurement.metrics, [prompt.text for prompt in source.prompts])
    for cut in cuts:
        print(f"note: {cut}", file=sys.stderr)
    scores = measurement.scores(config.evaluation.batch_size)
    if isinstance(source, DrawnImages):
        scores.noise.update(source.noise_measures())
        scores.calls.update(source.calls())
        scores.constant.update(asdict(source.constant) if source.constant else {})
        if CONSTANT in evaluated_methods(config) and not source.constant:
            scores.remarks.append(UNKNOWN)
    scores.remarks.extend(cuts)
    if names := [name for name in config.metric if name in optimised(config)]:
        scores.remarks.append(f"{', '.join(names)}: the network was trained to raise it, so that other metrics judge")
    return scores
