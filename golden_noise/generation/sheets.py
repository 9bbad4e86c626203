"""The images of a generate job, and their overviews: rows, a contact sheet, `metadata.jsonl`."""

import json
from itertools import product
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from golden_noise.files import write_atomically
from golden_noise.generation.drawing import Drawing
from golden_noise.images import TEXT, about, contact_sheet, save_png, side_by_side
from golden_noise.prompts import Prompt

ROW, SHEET = "side_by_side", "sheet.png"
ON_SHEET = 48  # prompts that the contact sheet shows


class GeneratedImages(Drawing):
    """The images of one job, whose names sort in the order of the prompts."""

    def path(self, method: str, position: int) -> Path:
        """The image of the prompt at a position; of `ROW`, all its images side by side."""
        prompt = self.prompts[position]
        return self.folder / method / f"{prompt.index:06d}_seed{prompt.seed}.png"

    def texts(
        self, method: str, positions: range, latents: Tensor, noise: Tensor, calls: float
    ) -> list[dict[str, str]]:
        """See `Drawing`: also everything that made the image."""
        texts = []
        for prompt in (self.prompts[position] for position in positions):
            facts = _facts(prompt, method) | self.origin | {"made_by": self.settings[method]}
            texts.append({"Description": prompt.text, "Software": "golden-noise", TEXT: json.dumps(facts)})
        return texts

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
            lines.append(json.dumps(file | _facts(prompt, method) | prompt.tags, ensure_ascii=False) + "\n")
        write_atomically(self.folder / "metadata.jsonl", "".join(lines))

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


def _facts(prompt: Prompt, noise: str | list[str]) -> dict[str, Any]:
    return {"prompt": prompt.text, "seed": prompt.seed, "noise": noise}
