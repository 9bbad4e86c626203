"""The images of a generate job, and their overviews: rows, a contact sheet, `metadata.jsonl`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from golden_noise.errors import UserError
from golden_noise.files import write_atomically
from golden_noise.generation.drawing import Drawing
from golden_noise.generation.layouts import LAYOUTS, flat, geneval_metadata
from golden_noise.generation.methods import Methods
from golden_noise.generation.noise_files import save_noise as save_noise_file
from golden_noise.generation.parameters import parameters
from golden_noise.images import (
    MOST_EXIF,
    PARAMETERS,
    SOFTWARE,
    TEXT,
    about,
    contact_sheet,
    exif_of,
    save_png,
    side_by_side,
)
from golden_noise.pipelines.base import Pipeline
from golden_noise.prompts import Prompt

ROW, SHEET = "side_by_side", "sheet.png"
ON_SHEET = 48  # prompts that the contact sheet shows


@dataclass(frozen=True)
class Saving:
    """How images are saved: the settings of generate.py with these names."""

    layout: str = "flat"
    format: str = "png"
    quality: int | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What of it decides images and their names, for `claim`; nothing for PNG files in one folder, as before."""
        return {name: value for name, value in vars(self).items() if value != getattr(Saving, name)}


class GeneratedImages(Drawing):
    """The images of one job, whose names sort in the order of the prompts.

    Args:
        saving: how the images are saved.
        each: how many images each prompt has; they follow each other in `prompts`.
        given: (1, C, H, W), or one for each image: noise of the user's instead of the seeds'.
        save_noise: whether to save what each image started from beside it.
        arguments: see `Drawing`.

    Raises:
        UserError: see `Drawing`; or the layout or format has no place for a prompt.
    """

    def __init__(
        self,
        compute: Methods,
        prompts: Sequence[Prompt],
        folder: Path,
        settings: Mapping[str, dict[str, Any]],
        origin: dict[str, Any],
        saving: Saving,
        each: int,
        given: Tensor | None = None,
        save_noise: bool = False,
    ):
        self.given, self.save_noise = given, save_noise
        self.saving, self.each, self.quality = saving, each, saving.quality
        self._names = LAYOUTS[saving.layout](prompts, each)
        self._rows = flat(prompts, each)
        own = {method: made_by | saving.identity for method, made_by in settings.items()}
        super().__init__(compute, prompts, folder, own, origin)
        if saving.format == "jpg":
            self._check_sizes()

    def noise(self, positions: range) -> Tensor:
        """See `Drawing`: rounded to the pipeline's dtype, as the noise of seeds is."""
        if self.given is None:
            return super().noise(positions)
        chosen = self.given[positions.start : positions.stop] if len(self.given) > 1 else self.given
        return chosen.expand(len(positions), -1, -1, -1).to(self.pipeline.dtype).float()

    def keep_noise(self, method: str, position: int, latents: Tensor) -> None:
        """See `Drawing`."""
        if self.save_noise:
            prompt = self.prompts[position]
            facts = {"prompt": prompt.text, "seed": prompt.seed, "noise": method}
            save_noise_file(latents, self.path(method, position).with_suffix(".safetensors"), facts)

    def _exists(self, method: str, position: int) -> bool:
        kept = not self.save_noise or self.path(method, position).with_suffix(".safetensors").is_file()
        return super()._exists(method, position) and kept

    def path(self, method: str, position: int) -> Path:
        """The image of the prompt at a position; of `ROW`, all its images side by side."""
        if method == ROW:
            return self.folder / ROW / f"{self._rows[position]}.png"
        return self.folder / method / f"{self._names[position]}.{self.saving.format}"

    def folder_of(self, method: str) -> Path:
        """See `Drawing`."""
        return self.folder / method

    def texts(
        self, method: str, positions: range, latents: Tensor, noise: Tensor, calls: float
    ) -> list[dict[str, str]]:
        """See `Drawing`: also everything that made the image."""
        return [self._text(method, self.prompts[position]) for position in positions]

    def _text(self, method: str, prompt: Prompt) -> dict[str, str]:
        return image_texts(prompt, method, self.pipeline, self.origin, self.settings[method])

    def _check_sizes(self) -> None:
        """Refuse a prompt that is too long for a JPEG file, before any is drawn."""
        for method in self.methods:
            longest = max(self.prompts, key=lambda prompt: len(json.dumps(prompt.text)))
            if len(exif_of(self._text(method, longest))) > MOST_EXIF:
                raise UserError(
                    f"format=jpg has no place for what made an image of {longest.text[:50]!r}…, which has "
                    f"{len(longest.text):,} letters: use format=png or webp"
                )

    def write_rows(self, positions: range, drawn: set[tuple[str, int]]) -> None:
        """The images of each prompt side by side, if there are several methods; `drawn` are new (method, position)."""
        if len(self.methods) < 2:
            return
        (self.folder / ROW).mkdir(exist_ok=True)
        for i in positions:
            path, facts = self.path(ROW, i), _facts(self.prompts[i], self.methods)
            if about(path) != facts or any((method, i) in drawn for method in self.methods):
                row = side_by_side({method: Image.open(self.path(method, i)) for method in self.methods})
                save_png(row, path, {"Description": self.prompts[i].text, TEXT: json.dumps(facts)})

    def write_metadata(self) -> None:
        """`metadata.jsonl`: an object per image, in the form of Hugging Face's image folders."""
        lines = []
        for (i, prompt), method in product(enumerate(self.prompts), self.methods):
            file = {"file_name": self.path(method, i).relative_to(self.folder).as_posix()}
            facts = file | _facts(prompt, method)
            lines.append(json.dumps(facts | prompt.tags | facts, ensure_ascii=False) + "\n")  # no tag replaces them
        write_atomically(self.folder / "metadata.jsonl", "".join(lines))
        if self.saving.layout == "geneval":
            for method, i in product(self.methods, range(0, len(self.prompts), self.each)):
                own = self.path(method, i).parent.parent / "metadata.jsonl"
                write_atomically(own, geneval_metadata(self.prompts[i]))

    def write_sheet(self) -> None:
        """A contact sheet of the first prompts, if there are several."""
        shown = self.prompts[:ON_SHEET]
        if len(shown) > 1:
            captions = [f"{prompt.text} ({prompt.seed})" for prompt in shown]
            pictures = [(caption, Image.open(self.path(self._best, i))) for i, caption in enumerate(captions)]
            save_png(contact_sheet(pictures), self.folder / SHEET)

    def summary(self) -> str:
        """Where everything is."""
        if len(self.prompts) == 1:
            return "\n".join(str(self.path(name, 0).resolve()) for name in dict.fromkeys([*self.methods, self._best]))
        count = len(self.prompts) * len(self.methods)
        return f"{count:,} images: {self.folder.resolve()} (an overview: {SHEET})"

    @property
    def _best(self) -> str:
        """The folder of what shows a prompt best."""
        return ROW if len(self.methods) > 1 else self.methods[0]


def image_texts(
    prompt: Prompt, method: str, pipeline: Pipeline, origin: Mapping[str, Any], made_by: Mapping[str, Any]
) -> dict[str, str]:
    """The texts of an image's file: all that made it.

    Args:
        origin: further facts, such as the versions of the libraries.
        made_by: the method's identity, see `provenance.drawing_settings`.
    """
    facts = _facts(prompt, method) | dict(origin) | {"made_by": made_by}
    network = origin.get("npnet") if "npnet" in made_by else None
    shown = parameters(prompt, method, pipeline, str(made_by["pipeline"]["source"]), network)
    return {"Description": prompt.text, SOFTWARE: TEXT, PARAMETERS: shown, TEXT: json.dumps(facts)}


def _facts(prompt: Prompt, noise: str | list[str]) -> dict[str, Any]:
    return {"prompt": prompt.text, "seed": prompt.seed, "noise": noise}
