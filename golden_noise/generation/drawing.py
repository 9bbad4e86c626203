"""Images that a job draws, a folder for each method: each image once, never mixed with those of other settings."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from torch import Tensor

from golden_noise import identity
from golden_noise.errors import UserError
from golden_noise.files import write_atomically
from golden_noise.generation.methods import Methods
from golden_noise.images import ENDINGS, about, save_image, to_pil
from golden_noise.noise import sampler_generators
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.calls import counting
from golden_noise.pipelines.overflow import are_finite, check_images
from golden_noise.pipelines.prompt_embedding import PromptEmbedding
from golden_noise.prompts import Prompt
from golden_noise.sharing.claims import locked
from golden_noise.tracking import record

MADE_BY = "made_by.json"


@dataclass(frozen=True)
class Drawn:
    """The images of one method for a batch.

    Attributes:
        images: (B, 3, height, width) in [0, 1].
        latents: (B, C, H, W) the method's starting noise.
        noise: (B, C, H, W) the standard noise that it was made from.
        calls: denoiser calls that each image took, its noise included.
    """

    method: str
    images: Tensor
    latents: Tensor
    noise: Tensor
    calls: float


def draw_batch(
    compute: Methods,
    prompts: Sequence[Prompt],
    noise: Tensor,
    methods: Sequence[str],
    others: Sequence[Prompt] | None = None,
) -> Iterator[Drawn]:
    """The images of some methods, one after the other. The noises of all methods are computed first.

    Args:
        noise: (B, C, H, W) the standard noise of the prompts.
        others: another prompt for each one, if `shuffled` is among the methods.

    Raises:
        UserError: a noise or an image is not finite.
    """
    pipeline, seeds = compute.pipeline, [prompt.seed for prompt in prompts]
    embedding = _encode(pipeline, prompts)
    noises, costs = compute.noises(noise, embedding, _encode(pipeline, others) if others else embedding, seeds)
    for method in methods:
        _check_noise(noises[method], prompts, method)
        with counting(pipeline) as calls:
            own = compute.samplers.get(method, {})
            images = pipeline.sample(embedding, noises[method], generator=sampler_generators(seeds), **own)
        check_images(images, prompts, method, pipeline.dtype)
        yield Drawn(method, images, noises[method], noise, costs[method] + calls.total / len(prompts))


def _encode(pipeline: Pipeline, prompts: Sequence[Prompt]) -> PromptEmbedding:
    return pipeline.encode([prompt.text for prompt in prompts])


class Drawing(ABC):
    """Draws the images of every method from the same prompts, seeds and sampler generators.

    Every PNG records its prompt and seed, so an interrupted job keeps its images. Any number of processes may draw into
    one folder.

    Args:
        compute: the starting noises of the methods.
        settings: what decides the images of each method; see `claim`.
        origin: further facts for the PNGs.
        others: another prompt for each one, if `shuffled` is among the methods.
        replace: delete images of other settings instead of refusing them.

    Raises:
        UserError: the folder holds images of other settings.
    """

    def __init__(
        self,
        compute: Methods,
        prompts: Sequence[Prompt],
        folder: Path,
        settings: Mapping[str, dict[str, Any]],
        origin: dict[str, Any] | None = None,
        others: Sequence[Prompt] | None = None,
        replace: bool = False,
    ):
        self.compute, self.pipeline, self.methods = compute, compute.pipeline, compute.names
        self.prompts, self.others, self.folder, self.settings = prompts, others, folder, settings
        self.origin = origin or {}
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):  # one of several processes is the first to claim it
            for method in self.methods:
                claim(self.folder_of(method), settings[method], replace)

    quality: int | None = None  # of images that are no PNG files

    def folder_of(self, method: str) -> Path:
        """The folder of all images of a method."""
        return self.path(method, 0).parent

    @abstractmethod
    def path(self, method: str, position: int) -> Path:
        """The image of the prompt at a position."""

    @abstractmethod
    def texts(
        self, method: str, positions: range, latents: Tensor, noise: Tensor, calls: float
    ) -> list[dict[str, str]]:
        """The texts of each PNG of a batch: under `images.TEXT` at least `prompt` and `seed`.

        Args:
            latents: (B, C, H, W) the method's starting noise.
            noise: (B, C, H, W) the standard noise that it was made from.
            calls: denoiser calls that each image took, its noise included.
        """

    def noise(self, positions: range) -> Tensor:
        """The standard noise (B, C, H, W) of a batch, by default that of the prompts' seeds."""
        return self.pipeline.draw_noise([self.prompts[position].seed for position in positions])

    def keep_noise(self, method: str, position: int, latents: Tensor) -> None:  # noqa: B027, most keep none
        """What else is saved of an image, and before it: its starting noise (C, H, W) is given."""

    def missing(self, positions: range) -> set[tuple[str, int]]:
        """The images (method, position) that do not exist; refuse those of another prompt or seed."""
        return {(method, i) for method, i in product(self.methods, positions) if not self._exists(method, i)}

    def draw(self, positions: range, saved: Callable[[], object] = lambda: None) -> set[tuple[str, int]]:
        """Draw what is missing of a batch, and return it as `missing` does; `saved` is called after each image.

        A method's batch is computed whole, so that it is always the same.

        Raises:
            UserError: an image belongs to another prompt or seed, or a noise or an image is not finite.
        """
        missing = self.missing(positions)
        lacking = [method for method in self.methods if method in {name for name, _ in missing}]
        if not lacking:
            return missing
        where = slice(positions.start, positions.stop)
        batch, others = self.prompts[where], self.others and self.others[where]
        for drawn in draw_batch(self.compute, batch, self.noise(positions), lacking, others):
            method = drawn.method
            texts = self.texts(method, positions, drawn.latents, drawn.noise, drawn.calls)
            for i, image, text, latents in zip(positions, to_pil(drawn.images), texts, drawn.latents, strict=True):
                if (method, i) in missing:
                    path = self.path(method, i)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    self.keep_noise(method, i, latents)
                    save_image(image, path, text, self.quality)
                    saved()
        return missing

    def _exists(self, method: str, position: int) -> bool:
        path, prompt = self.path(method, position), self.prompts[position]
        facts = about(path)
        if facts and (facts["prompt"], facts["seed"]) != (prompt.text, prompt.seed):
            raise UserError(
                f"{path} is of {facts['prompt']!r} (seed {facts['seed']}), but now item {prompt.index} is "
                f"{prompt.text!r} (seed {prompt.seed}): give another name=NAME or delete that folder"
            )
        return bool(facts)


def _check_noise(noise: Tensor, prompts: Sequence[Prompt], method: str) -> None:
    for prompt, finite in zip(prompts, are_finite(noise), strict=True):
        if not finite:
            raise UserError(
                f"the starting noise of method '{method}' is not finite for {prompt.text!r} (seed {prompt.seed}): "
                "its network may have diverged in training, which a lower recipe.lr avoids; or leave this noise out"
            )


def claim(folder: Path, settings: dict[str, Any], replace: bool) -> None:
    """Record what makes the images in a folder, so that they never mix with those of other settings.

    Args:
        settings: their identity, see `identity.images`.
        replace: delete images of other settings instead of refusing them; those of unknown origin are always refused.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made_by = folder / MADE_BY
    if made_by.exists():
        try:
            if (old := record.read(folder, MADE_BY)) is None:
                raise UserError(f"{made_by} is damaged: give another name=NAME or delete {folder}")
            identity.check(folder, old, settings, "give another name=NAME or delete that folder")
            return
        except UserError:
            if not replace and any(_images(folder)):
                raise
    elif any(_images(folder)):  # perhaps the user's own, so neither used nor deleted
        raise UserError(f"{folder} holds images that this job did not draw: give another name=NAME or move them away")
    for path in folder.glob("*.png"):  # of other settings
        path.unlink()
    write_atomically(made_by, json.dumps(settings, indent=2, sort_keys=True) + "\n")


def _images(folder: Path) -> Iterator[Path]:
    """The images in a folder and those below it."""
    return (path for path in folder.rglob("*") if path.suffix in ENDINGS)
