"""The generate job: prompts and seeds become images from standard, golden and searched noise."""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from golden_noise.errors import UserError
from golden_noise.evaluation.drawing import claim
from golden_noise.evaluation.job import drawing_settings, load_npnet, versions
from golden_noise.evaluation.scores import NPNET, SEARCH
from golden_noise.files import write_atomically
from golden_noise.generation.methods import Methods
from golden_noise.images import TEXT, about, contact_sheet, save_png, side_by_side, to_pil
from golden_noise.noise import sampler_generators
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.overflow import check_images
from golden_noise.prompts import Prompt
from golden_noise.prompts.job import announce
from golden_noise.prompts.seeds import next_seeds
from golden_noise.sharing.claims import locked
from golden_noise.sharing.fabric import launch, shared_batches

GOLDEN, ROW, SHEET = "golden", "side_by_side", "sheet.png"
ON_SHEET = 48  # items that the contact sheet shows


def generate(config: DictConfig) -> None:
    """Draw every prompt and seed from every kind of noise, each once: what an interrupted job has drawn is kept.

    As many processes as `config.fabric` says share the work, and any that run the same command. The run folder gets a
    folder of images per kind of noise, their rows `side_by_side/`, a contact sheet of the first items, and
    `metadata.jsonl` with a line per image. Every PNG says what made it.

    Raises:
        UserError: no NPNet, a noise or an image that is not finite, or images of other settings in the folder.
    """
    noises = [config.noise] if isinstance(config.noise, str) else list(config.noise)
    items = wanted(config)
    first = launch(config).is_global_zero
    load_pipeline = cache(partial(instantiate, config.pipeline.model))
    networks = {NPNET: load_npnet(config, config.npnet, load_pipeline)} if GOLDEN in noises else {}
    # Evaluations call golden noise by the network that it comes from.
    methods = {noise: NPNET if noise == GOLDEN else noise for noise in noises}
    settings = drawing_settings(config, list(methods.values()), networks)
    search = instantiate(config.search) if SEARCH in noises else None
    compute = Methods(list(methods.values()), load_pipeline(), search, networks.get(NPNET))
    folder = Path(config.folder)
    images = Images(items, methods, compute, {noise: settings[method] for noise, method in methods.items()}, folder)
    if first:
        announce(items, config.get("prompts"), noises=len(config.seeds or range(config.images_per_prompt)))
        warn_of_unknown_words(items, config.pipeline.get("vocabulary"))
        OmegaConf.save(config, folder / "config.yaml", resolve=True)
    origin = {"pipeline": config.pipeline.name, "npnet": config.npnet, "versions": versions()}
    images.draw(config.batch_size, origin, quiet=not first)
    if first:
        with locked(folder):  # the same command may have been started twice
            images.write_metadata()
            images.write_sheet()
        print(images.summary())


def wanted(config: DictConfig) -> list[Prompt]:
    """The prompt or prompts, once per seed, numbered in order."""
    one = [Prompt(0, config.prompt, config.seed)]
    prompts = instantiate(config.prompts) if "prompts" in config else one
    seeds = [list(config.seeds)] * len(prompts) if config.seeds else next_seeds(prompts, config.images_per_prompt)
    pairs = [(prompt, seed) for prompt, chosen in zip(prompts, seeds, strict=True) for seed in chosen]
    return [Prompt(index, prompt.text, seed, prompt.tags) for index, (prompt, seed) in enumerate(pairs)]


class Images:
    """The images of one job in its folder.

    Args:
        items: prompts with their seeds.
        methods: kind of noise -> its name in `compute`.
        compute: the starting noises.
        settings: what decides the images of each kind of noise; see `claim`.

    Raises:
        UserError: the folder holds images of other settings, prompts or seeds.
    """

    def __init__(
        self,
        items: list[Prompt],
        methods: dict[str, str],
        compute: Methods,
        settings: dict[str, dict[str, Any]],
        folder: Path,
    ):
        self.items, self.methods, self.compute, self.settings, self.folder = items, methods, compute, settings, folder
        self.pipeline: Pipeline = compute.pipeline
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):  # of two processes, one is the first to say what the images are
            for noise in methods:
                claim(folder / noise, settings[noise], replace=False)
        for item, noise in product(items, methods):
            self._exists(noise, item)  # or of another prompt, which is noticed now

    def path(self, noise: str, item: Prompt) -> Path:
        """The image of one item; names sort in the order of the items."""
        return self.folder / noise / f"{item.index:06d}_seed{item.seed}.png"

    def draw(self, batch_size: int, origin: dict[str, Any], quiet: bool = False) -> None:
        """Draw what is missing, beside any number of processes that do the same in this folder.

        A batch is computed whole, so that it is always the same.

        Args:
            origin: goes into the PNGs.
            quiet: show no progress.

        Raises:
            UserError: a noise or an image is not finite.
        """
        total = len(self.items) * len(self.methods)
        with tqdm(desc="drawing", unit="image", total=total, disable=quiet) as bar:
            for places in shared_batches(self.folder, len(self.items), batch_size):
                batch = self.items[places.start : places.stop]
                missing = {(n, item.index) for item, n in product(batch, self.methods) if not self._exists(n, item)}
                bar.update(len(batch) * len(self.methods) - len(missing))
                for noise, item, image in self._drawn(batch, missing):
                    made_by = self.settings[noise]
                    facts = {"prompt": item.text, "seed": item.seed, "noise": noise} | origin | {"made_by": made_by}
                    text = {"Description": item.text, "Software": "golden-noise", TEXT: json.dumps(facts)}
                    save_png(image, self.path(noise, item), text)
                    bar.update()
                self._write_rows(batch, missing)

    def _drawn(
        self, batch: Sequence[Prompt], missing: set[tuple[str, int]]
    ) -> Iterator[tuple[str, Prompt, Image.Image]]:
        """What a batch lacks: (kind of noise, index) is missing."""
        lacking = [noise for noise in self.methods if any((noise, item.index) in missing for item in batch)]
        if not lacking:
            return
        seeds = [item.seed for item in batch]
        noise = self.pipeline.draw_noise(seeds)
        embedding = self.pipeline.encode([item.text for item in batch])
        noises = self.compute.noises(noise, embedding, embedding, seeds)
        for name in lacking:
            latents = noises[self.methods[name]]
            _check_finite(name, latents, batch)
            drawn = self.pipeline.sample(embedding, latents, generator=sampler_generators(seeds))
            check_images(drawn, batch, name, self.pipeline.dtype)
            for item, image in zip(batch, to_pil(drawn), strict=True):
                if (name, item.index) in missing:
                    yield name, item, image

    def _write_rows(self, batch: Sequence[Prompt], drawn: set[tuple[str, int]]) -> None:
        """The images of each item side by side, where there are several."""
        if len(self.methods) < 2:
            return
        (self.folder / ROW).mkdir(exist_ok=True)
        for item in batch:
            path, facts = self.path(ROW, item), {"prompt": item.text, "seed": item.seed, "noise": list(self.methods)}
            if about(path) != facts or any((noise, item.index) in drawn for noise in self.methods):
                row = side_by_side({noise: Image.open(self.path(noise, item)) for noise in self.methods})
                save_png(row, path, {"Description": item.text, TEXT: json.dumps(facts)})

    def write_metadata(self) -> None:
        """`metadata.jsonl`: an object per image, in the form of Hugging Face's image folders."""
        lines = []
        for item, noise in product(self.items, self.methods):
            file = self.path(noise, item).relative_to(self.folder).as_posix()
            lines.append({"file_name": file, "prompt": item.text, "seed": item.seed, "noise": noise, **item.tags})
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_atomically(self.folder / "metadata.jsonl", text)

    def write_sheet(self) -> None:
        """A contact sheet of the first items, if there are several."""
        shown = self.items[:ON_SHEET]
        if len(shown) > 1:
            pictures = [(f"{item.text} ({item.seed})", Image.open(self.path(self._best, item))) for item in shown]
            save_png(contact_sheet(pictures), self.folder / SHEET)

    def summary(self) -> str:
        """Where everything is."""
        if len(self.items) == 1:
            kinds = dict.fromkeys([*self.methods, self._best])
            return "\n".join(str(self.path(kind, self.items[0]).resolve()) for kind in kinds)
        count = len(self.items) * len(self.methods)
        return f"{count:,} images: {self.folder.resolve()} (an overview: {SHEET})"

    @property
    def _best(self) -> str:
        """The folder of what shows an item best."""
        return ROW if len(self.methods) > 1 else next(iter(self.methods))

    def _exists(self, noise: str, item: Prompt) -> bool:
        found = about(self.path(noise, item))
        if found and found["prompt"] != item.text:
            raise UserError(
                f"{self.path(noise, item)} is of {found['prompt']!r}, but now this item is {item.text!r}: "
                "give another name=NAME or delete that folder"
            )
        return bool(found)


def warn_of_unknown_words(items: Sequence[Prompt], vocabulary: Sequence[str] | None) -> None:
    """Say once which words of the prompts a pipeline of few words was never trained on; None: it knows any."""
    if vocabulary is None:
        return
    words = dict.fromkeys(word for item in items for word in re.findall(r"\w+", item.text.lower()))
    unknown = [word for word in words if word not in vocabulary]
    if unknown:
        shown = ", ".join(unknown[:10]) + (", ..." if len(unknown) > 10 else "")
        print(
            f"warning: this pipeline was never trained on: {shown}; it knows {', '.join(vocabulary)}", file=sys.stderr
        )


def _check_finite(noise: str, latents: Tensor, batch: Sequence[Prompt]) -> None:
    finite = torch.isfinite(latents).flatten(1).all(dim=1).tolist()
    for item, good in zip(batch, finite, strict=True):
        if not good:
            raise UserError(f"noise={noise} is not finite for {item.text!r} (seed {item.seed}): check its network")
