"""The generate job: prompts and seeds become images from standard, golden and searched noise."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from golden_noise.files import write_atomically
from golden_noise.generation.candidates import SCORES, Origin, candidate, write_table
from golden_noise.generation.methods import Methods, predicting, searching
from golden_noise.generation.names import CANDIDATES, GOLDEN, SEARCH
from golden_noise.generation.network import load_npnet
from golden_noise.generation.noise_files import read_noise
from golden_noise.generation.provenance import drawing_settings, versions
from golden_noise.generation.sheets import GeneratedImages, Saving
from golden_noise.pipelines.lazy import LazyPipeline
from golden_noise.prompts import Prompt
from golden_noise.prompts.job import announce
from golden_noise.prompts.seeds import next_seeds
from golden_noise.sharing.claims import locked
from golden_noise.sharing.fabric import launch, shared_batches
from golden_noise.sharing.helpers import one_thread


def generate(config: DictConfig) -> None:
    """Draw every prompt and seed from every chosen noise, each once: an interrupted job keeps its images.

    As many processes as `config.fabric` says share the work, and any that run the same command. The run folder gets a
    folder of images per noise, their rows `side_by_side/`, a contact sheet of the first items, and `metadata.jsonl`
    with a line per image. Every PNG records what made it.

    Raises:
        UserError: no NPNet, a noise or an image that is not finite, or images of other settings in the folder.
    """
    prompts = wanted(config)
    first = launch(config).is_global_zero
    images = load_images(config, prompts)
    images.missing(range(len(prompts)))  # refuses images of other prompts now
    if first:
        announce(prompts, config.get("prompts"), noises=images_each(config))
        warn_of_unknown_words(prompts, config.pipeline.get("vocabulary"))
        if config.layout == "geneval" and not all("include" in prompt.tags for prompt in prompts):
            print(
                "note: GenEval's evaluator needs the prompts of prompts=geneval, which say what to find",
                file=sys.stderr,
            )
        with locked(images.folder):  # the same command may have been started twice
            write_atomically(images.folder / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
    with one_thread(config):
        draw(images, config.batch_size, quiet=not first)
    if first:
        with locked(images.folder):
            images.write_metadata()
            images.write_sheet()
            write_scores(config, images)
        print(images.summary())


def wanted(config: DictConfig) -> list[Prompt]:
    """The prompt or prompts, once per seed, numbered in order."""
    one = [Prompt(0, config.prompt, config.seed)]
    prompts = instantiate(config.prompts) if "prompts" in config else one
    seeds = [list(config.seeds)] * len(prompts) if config.seeds else next_seeds(prompts, config.images_per_prompt)
    pairs = [(prompt, seed) for prompt, chosen in zip(prompts, seeds, strict=True) for seed in chosen]
    return [Prompt(index, prompt.text, seed, prompt.tags) for index, (prompt, seed) in enumerate(pairs)]


def images_each(config: DictConfig) -> int:
    """How many images each prompt has."""
    return len(config.seeds) if config.seeds else config.images_per_prompt


def load_images(config: DictConfig, prompts: Sequence[Prompt]) -> GeneratedImages:
    """The images of the job, with all models that drawing them needs."""
    noises = [config.noise] if isinstance(config.noise, str) else list(config.noise)
    shape, given = tuple(config.pipeline.latent_shape), None
    if config.noise_file is not None:
        given = read_noise(config.noise_file, shape, len(prompts))
    pipeline = LazyPipeline(config.pipeline.model)
    around = candidates(config)
    wants = GOLDEN in noises or (around and config.npnet is not None)
    network = load_npnet(config, config.npnet, pipeline) if wants else None
    names = [name for noise in noises for name in (around if noise == CANDIDATES else [noise])]
    networks = {name: network for name in (GOLDEN, *around) if name in names and network is not None}
    settings = drawing_settings(config, names, networks, {name: {"candidate": facts} for name, facts in around.items()})
    extra = {name: candidate(network, **facts) for name, facts in around.items()}
    if network is not None:
        extra[GOLDEN] = predicting(network, config.strength)
    if SEARCH in noises:
        extra[SEARCH] = searching(instantiate(config.search), pipeline.loaded)
    compute = Methods(names, pipeline.loaded, npnet=None, extra=extra, networks=[network] if network else [])
    origin = {"pipeline": config.pipeline.name, "npnet": config.npnet, "versions": versions()}
    saving, each = Saving(config.layout, config.format, config.quality), images_each(config)
    own = {"given": given, "save_noise": config.save_noise}
    return GeneratedImages(compute, prompts, Path(config.folder), settings, origin, saving, each, **own)


def candidates(config: DictConfig) -> dict[str, dict[str, Any]]:
    """The methods of `noise=candidates`, if it was chosen, and what each is made with."""
    if CANDIDATES not in ([config.noise] if isinstance(config.noise, str) else config.noise):
        return {}
    group, sigma = config.candidates.group, config.candidates.sigma
    return {f"candidate_{member}": {"sigma": sigma, "member": member} for member in range(group)}


def write_scores(config: DictConfig, images: GeneratedImages) -> None:
    """The table of the candidates for people to fill in, if there are any."""
    if not (around := candidates(config)):
        return
    paths = [[images.path(name, i) for name in around] for i in range(len(images.prompts))]
    digest = images.settings[next(iter(around))].get("npnet")
    write_table(images.folder, paths, images.prompts, config.candidates.sigma, Origin.of(config, digest))
    print(f"to fill in: {(images.folder / SCORES).resolve()}")


def draw(images: GeneratedImages, batch_size: int, quiet: bool = False) -> None:
    """Draw what is missing, sharing the work with other processes; `quiet` hides the progress."""
    count = len(images.methods)
    with tqdm(desc="drawing", unit="image", total=len(images.prompts) * count, disable=quiet) as bar:
        for positions in shared_batches(images.folder, len(images.prompts), batch_size):
            drawn = images.draw(positions, saved=bar.update)
            bar.update(len(positions) * count - len(drawn))  # those that were there
            images.write_rows(positions, drawn)


def warn_of_unknown_words(items: Sequence[Prompt], vocabulary: Sequence[str] | None) -> None:
    """Name the words of the prompts that a pipeline of few words was never trained on; None: it knows all."""
    if unknown := unknown_words(items, vocabulary):
        print(
            f"warning: this pipeline was never trained on: {unknown}; it knows {', '.join(vocabulary or ())}",
            file=sys.stderr,
        )


def unknown_words(items: Sequence[Prompt], vocabulary: Sequence[str] | None) -> str:
    """The first words of the prompts that are not in the vocabulary, None being all words: `zebra, cat, ...`"""
    words = dict.fromkeys(word for item in items for word in re.findall(r"[^\W\d]\w*", item.text.lower()))
    unknown = [word for word in words if vocabulary is not None and word not in vocabulary]
    return ", ".join(unknown[:10]) + (", ..." if len(unknown) > 10 else "")
