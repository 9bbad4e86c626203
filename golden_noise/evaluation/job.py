"""The evaluate job: images of the same prompts and seeds from every method's noise, scored and compared."""

import platform
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from PIL import Image

import golden_noise
from golden_noise import identity
from golden_noise.device import device_kind, pick_device
from golden_noise.errors import UserError
from golden_noise.evaluation import report, results
from golden_noise.evaluation.choices import check_constant, evaluated_methods
from golden_noise.evaluation.constant import UNKNOWN, Constant, Learning, choose_constant, learning_prompts
from golden_noise.evaluation.drawing import Drawing, network_settings, other_prompts, weights_digest
from golden_noise.evaluation.folders import Folders
from golden_noise.evaluation.measuring import ImageSource, Measurement
from golden_noise.evaluation.scores import BEST_OF_N, CONSTANT, NETWORK_CONTROLS, NPNET, SEARCH, SHUFFLED, STANDARD
from golden_noise.generation.methods import METHODS, Method, Methods
from golden_noise.images import read_image
from golden_noise.metrics.base import Metric
from golden_noise.metrics.limits import prompts_cut
from golden_noise.npnet import AnyNPNet, NPNet, checkpoint
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.loading import model_dtype
from golden_noise.prompts import Prompt
from golden_noise.prompts.job import announce
from golden_noise.search.base import NoiseSearch
from golden_noise.search.best_of_n import BestOfN
from golden_noise.search.rescale import Rescale
from golden_noise.sharing.claims import locked
from golden_noise.sharing.fabric import launch
from golden_noise.tracking.wandb import log_evaluation, log_in, report_weights_used, start_run

if TYPE_CHECKING:
    from wandb.sdk.wandb_run import Run

ADDED = {  # methods beside those that have a name of their own, and what each is
    "checkpoints": "a folder, hub id or file",
    "searches": "a search with its _target_, as in conf/search",
}
LIBRARIES = ("torch", "diffusers", "transformers", "lightning", "timm")


def evaluate(
    config: DictConfig,
    npnet: AnyNPNet | None = None,
    folder: Path | None = None,
    load_pipeline: Callable[[], Pipeline] | None = None,
    find_run: Callable[[], "Run | None"] = lambda: None,
    learning: Learning | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Compare starting noises and write images, `results.json`, `results.csv` and `report.html`.

    The images are drawn here, or found in the folders of `config.evaluation.images`. What an interrupted evaluation
    has drawn and scored is used again, and the results are the same as if it had run through. Processes that evaluate
    the same share the work.

    Args:
        npnet: the network to judge; loaded from `config.npnet` if not given. A network that is given replaces the
            images of an older one.
        folder: where to write, `config.folder` by default.
        load_pipeline: gives the pipeline of `config` if the caller has it already.
        find_run: gives the W&B run to report to, if there is one; called when there are results.
        learning: gives prompts of the training for the control `constant`; see `learning_prompts`.
        quiet: work as all processes of a job but the first do: say nothing and write no results.

    Returns:
        The content of `results.json`; nothing where this process wrote none.

    Raises:
        UserError: unknown method, no metric, no prompts, no NPNet where one is needed, no other prompts where controls
            need them, images of other settings, or folders that do not match.
    """
    check_metrics(config)
    folder = Path(config.folder) if folder is None else folder
    folder.mkdir(parents=True, exist_ok=True)
    load_pipeline = load_pipeline or cache(partial(instantiate, config.pipeline.model))
    start = time.perf_counter()
    constant = None
    if config.evaluation.get("images") is None:
        check_methods(config)
        prompts, others = evaluated_prompts(config)
        learnt = learning_prompts(config, prompts, learning)
        networks = load_networks(config, npnet, load_pipeline)
        metrics: dict[str, Metric] = instantiate(config.metric)
        pipeline, replace = load_pipeline(), npnet is not None
        if not quiet:
            announce(prompts, config.evaluation.prompts)
        constant = choose_constant(config, learnt, pipeline, metrics, quiet)
        source: ImageSource = drawing(config, pipeline, prompts, others, networks, metrics, folder, replace, constant)
    else:
        source = found_images(config)
        if not quiet:
            announce(source.prompts, config.evaluation.prompts)
        metrics = instantiate(config.metric)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    measurement = Measurement(source, metrics, plain["metric"], folder)
    if quiet:
        measurement.measure(config.evaluation.batch_size, quiet)
        return {}
    cuts = prompts_cut(metrics, [prompt.text for prompt in source.prompts])
    for cut in cuts:
        print(f"note: {cut}", file=sys.stderr)
    scores = measurement.scores(config.evaluation.batch_size)
    if isinstance(source, Drawing):
        scores.noise.update(source.noise_measures())
        scores.constant.update(constant.report() if constant else {})
        if CONSTANT in evaluated_methods(config) and not constant:
            scores.remarks.append(UNKNOWN)
    scores.remarks.extend(cuts)
    summary = results.summarise(scores, plain, versions(), shlex.join(["python", *sys.argv]))

    def image(method: str, position: int) -> Image.Image:
        return read_image(source.path(method, position))

    with locked(folder):  # the same command may have been started twice
        results.write(folder, scores, summary)
        report.write_report(folder, scores, summary, image)
    results.print_table(summary)
    print(f"report: {(folder / 'report.html').resolve()} ({time.perf_counter() - start:.0f} s)")
    if run := find_run():
        log_evaluation(run, summary, scores, image)
    return summary


def evaluate_job(config: DictConfig) -> None:
    """The evaluate job: `evaluate` in as many processes as `config.fabric` says, reported in a run of its own."""
    log_in(config)
    check_metrics(config)
    if config.evaluation.get("images") is None:  # one process is enough to find out what cannot work
        check_methods(config)
        evaluated_prompts(config)
    quiet = not launch(config).is_global_zero
    find_run = cache(partial(start_run, config))
    evaluate(config, find_run=find_run, quiet=quiet)
    if not quiet and (run := find_run()):
        report_weights_used(run, config.npnet)
        run.finish()


def found_images(config: DictConfig) -> Folders:
    """The images of `config.evaluation.images`."""
    folders = dict(config.evaluation.images)
    if STANDARD not in folders:
        raise UserError(f"evaluation.images lacks '{STANDARD}': every method is compared with it")
    _check_twice(folders)
    return Folders(folders, instantiate(config.evaluation.prompts))


def _check_twice(folders: Mapping[str, Any]) -> None:
    """Check that no folder stands for two methods, which would compare equal images.

    Raises:
        UserError: one does.
    """
    seen: dict[Path, str] = {}
    for name, folder in folders.items():
        place = Path(str(folder)).expanduser().resolve()
        if place in seen:
            raise UserError(
                f"evaluation.images.{seen[place]} and evaluation.images.{name} are one folder, {folder}: "
                "give every method a folder of its own"
            )
        seen[place] = name


def evaluated_prompts(config: DictConfig) -> tuple[list[Prompt], list[Prompt]]:
    """The prompts to evaluate, and for the control `shuffled` another one for each.

    Raises:
        UserError: they cannot be read, or there are no others.
    """
    prompts: list[Prompt] = instantiate(config.evaluation.prompts)
    return prompts, other_prompts(prompts) if SHUFFLED in evaluated_methods(config) else prompts


def load_networks(
    config: DictConfig, npnet: AnyNPNet | None, load_pipeline: Callable[[], Pipeline]
) -> dict[str, AnyNPNet]:
    """The networks of the chosen methods by name, `npnet` for the one under test and its controls.

    Raises:
        UserError: there is none where one is needed, or it does not fit the pipeline.
    """
    needing = [name for name in evaluated_methods(config) if name in (NPNET, *NETWORK_CONTROLS)]
    if needing and npnet is None and config.npnet is None:
        raise UserError(
            f"pipeline={config.pipeline.name} has no NPNet of its own, which evaluation.methods needs for "
            f"{', '.join(needing)}: give npnet=FOLDER from a training run, or leave them out"
        )
    networks = {n: load_npnet(config, source, load_pipeline) for n, source in config.evaluation.checkpoints.items()}
    if needing:
        networks[NPNET] = load_npnet(config, config.npnet, load_pipeline) if npnet is None else npnet
    return networks


def drawing(
    config: DictConfig,
    pipeline: Pipeline,
    prompts: list[Prompt],
    others: list[Prompt],
    networks: Mapping[str, AnyNPNet],
    metrics: Mapping[str, Metric],
    folder: Path,
    replace: bool,
    constant: Constant | None,
) -> Drawing:
    """The images of all methods, drawn by the pipeline."""
    names = [*evaluated_methods(config), *config.evaluation.checkpoints, *config.evaluation.searches]
    settings = drawing_settings(config, names, networks)
    extra = {name: predicting(network) for name, network in networks.items() if name != NPNET}
    extra |= {name: searching(instantiate(own), pipeline) for name, own in config.evaluation.searches.items()}
    if BEST_OF_N in names:
        best_of = config.evaluation.best_of
        best = BestOfN(metrics[best_of.metric or next(iter(metrics))], best_of.count)
        extra[BEST_OF_N] = lambda noise, prompt, seeds: best.choose(noise, prompt, pipeline, seeds)
    if constant:
        extra[CONSTANT] = searching(Rescale(constant.factor), pipeline)
        settings[CONSTANT]["factor"] = constant.factor
    elif CONSTANT in names:
        names.remove(CONSTANT)
    search = instantiate(config.search) if SEARCH in names else None
    methods = Methods(names, pipeline, search, networks.get(NPNET), extra)
    return Drawing(pipeline, methods, prompts, others, folder, settings, replace)


def predicting(network: AnyNPNet) -> Method:
    """The method that starts from a network's golden noise."""
    return lambda noise, prompt, seeds: network.golden(noise, prompt)


def searching(search: NoiseSearch, pipeline: Pipeline) -> Method:
    """The method that starts from a search's golden noise."""
    return lambda noise, prompt, seeds: search.search(noise, prompt, pipeline)


def drawing_settings(
    config: DictConfig, names: list[str], networks: Mapping[str, AnyNPNet]
) -> dict[str, dict[str, Any]]:
    """What decides the images of each method, beside the prompts and their seeds."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    kind = device_kind(config.device)
    model = identity.model(plain["pipeline"]["model"], model_dtype(plain["pipeline"]["model"], config.device))
    digests = {name: weights_digest(network) for name, network in networks.items()}
    searches = {
        SEARCH: plain.get("search"),
        **plain.get("evaluation", {}).get("searches", {}),
    }  # generate.py has one only
    settings = {}
    for name in names:
        parts: dict[str, Any] = {}
        if name in digests or name in NETWORK_CONTROLS:
            network = name if name in digests else NPNET
            own = network_settings(networks[network])
            parts |= {"npnet": digests[network], "npnet_settings": own, "device": identity.sign_device(own, kind)}
        if name in searches:
            parts["search"] = identity.without_device(searches[name])
        if name == BEST_OF_N:
            best_of = plain["evaluation"]["best_of"]
            metric = best_of["metric"] or next(iter(plain["metric"]))
            chosen = {metric: identity.without_device(plain["metric"][metric])}
            parts["best_of"] = {"count": best_of["count"], "metric": chosen}
        settings[name] = identity.images(model, **parts)
    return settings


def check_metrics(config: DictConfig) -> None:
    """Check that there is a metric.

    Raises:
        UserError: there is none.
    """
    if not config.get("metric"):
        raise UserError("no metric is left to score the images by: choose one, such as metric=shapes")


def check_methods(config: DictConfig) -> None:
    """Check the choice of methods and metrics, before anything is loaded.

    Raises:
        UserError: an unknown or doubled method, no metric, or one for `best_of_n` that was not chosen.
    """
    check_metrics(config)
    names, known = evaluated_methods(config), (*METHODS, BEST_OF_N)
    added = [(kind, name) for kind in ("checkpoints", "searches") for name in config.evaluation[kind]]
    for name in names:
        if name not in known:
            raise UserError(f"evaluation.methods: unknown method {name!r}, choose from {', '.join(known)}")
    for kind, name in added:
        if name in known or not str(name).replace("-", "_").isidentifier():
            raise UserError(f"evaluation.{kind}: {name!r} must be a name of its own, such as 'first_training'")
        if not _is_source(config.evaluation[kind][name], kind):
            raise UserError(f"evaluation.{kind}.{name} must be {ADDED[kind]}")
    every = [*names, *(name for _, name in added)]
    if len({*every}) < len(every):
        raise UserError(f"evaluation names a method twice: {', '.join(map(str, every))}")
    if STANDARD not in names:
        raise UserError(f"evaluation.methods={names} lack '{STANDARD}': every method is compared with it")
    if CONSTANT in names:
        check_constant(config)
    best_of = config.evaluation.best_of
    if best_of.count < 2 or (best_of.metric and best_of.metric not in config.metric):
        chosen = ", ".join(config.metric)
        raise UserError(
            f"evaluation.best_of={dict(best_of)} needs count >= 2 and a metric among the chosen ones: {chosen}"
        )


def _is_source(value: Any, kind: str) -> bool:
    return isinstance(value, DictConfig) and "_target_" in value if kind == "searches" else isinstance(value, str)


def load_npnet(config: DictConfig, source: str | None, load_pipeline: Callable[[], Pipeline]) -> AnyNPNet:
    """Load an NPNet, written by training or published, and check that it fits the pipeline.

    Args:
        source: a folder, hub id or file; None where the pipeline has no NPNet of its own and none was given.
        load_pipeline: gives the pipeline, whose denoiser some NPNets share; called only for one of these.

    Raises:
        UserError: there is none, or it was made for other shapes.
    """
    if source is None:
        raise UserError(
            f"pipeline={config.pipeline.name} has no NPNet of its own: give npnet=FOLDER from a training run"
        )
    told = {name: OmegaConf.select(config, name) for name in ("fit", "attention", "target")}
    npnet = checkpoint.load(source, "npnet", load_pipeline, **told)
    if isinstance(npnet, NPNet):
        check_shapes(npnet, source, config)
    # Lightning leaves what it trained on the CPU, and with it a pipeline that shares its denoiser.
    return npnet.to(pick_device(config.device))


def check_shapes(npnet: NPNet, source: str, config: DictConfig) -> None:
    """Check that a network was made for the pipeline's shapes, or may be used at them.

    Raises:
        UserError: it was not.
    """
    have, want = npnet.latent_shape, tuple(config.pipeline.latent_shape)
    if have != want and (npnet.fit == "exact" or have[0] != want[0]):
        raise UserError(
            f"the NPNet in {source} has latent_shape {have}, pipeline={config.pipeline.name} needs {want}: "
            "other heights and widths need fit=tile, fit=crop or fit=resize"
        )
    have, want = npnet.embeds_shape, tuple(config.pipeline.embeds_shape)
    if have != want:
        raise UserError(f"the NPNet in {source} has embeds_shape {have}, pipeline={config.pipeline.name} needs {want}")


def versions() -> dict[str, str]:
    """Versions of what the results depend on."""
    found = {name: version(name) for name in LIBRARIES}
    return {"golden-noise": golden_noise.__version__, "python": platform.python_version(), **found}
