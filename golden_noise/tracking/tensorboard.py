"""TensorBoard: event files in the run's folder, which a resumed run adds to."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from typing import Any

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image
from torch.utils.tensorboard.summary import hparams

from golden_noise.tracking.run_logger import RunLogger, flat, numbers, thumbnail

PLACES = ("name", "folder", "paths", "data_dir", "callbacks", "logger")  # differ always; HPARAMS shows those first
PICTURED = 16  # rows of a table whose images are shown


class TensorBoard(RunLogger, TensorBoardLogger):
    """Lightning's logger. A table becomes a text and, since texts hold no images, a grid of those of its first rows."""

    @rank_zero_only
    def log_hyperparams(self, params: Any, metrics: Any = None, step: int | None = None) -> None:
        """Log settings for the tab HPARAMS, without the placeholder of a metric that Lightning adds."""
        shown = {key: value for key, value in params.items() if key not in PLACES}
        _, settings, _ = hparams(flat(shown), {})
        self.hparams.update(params)
        self.experiment._get_file_writer().add_summary(settings)

    @rank_zero_only
    def log_grid(self, key: str, grid: Image.Image, step: int, caption: str) -> None:
        """Log the image; TensorBoard has no captions."""
        self.experiment.add_image(key, np.asarray(grid.convert("RGB")), step, dataformats="HWC")

    @rank_zero_only
    def log_table(self, key: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Log the texts and numbers as a Markdown table, and the images as a grid with the same rows."""
        lines: list[str] = []
        pictures: list[list[Image.Image]] = []
        shown: list[bool] = []
        for row in rows:
            shown = [isinstance(cell, Image.Image) for cell in row]
            lines.append(_line(cell for cell, image in zip(row, shown, strict=True) if not image))
            if len(pictures) < PICTURED:
                pictures.append([thumbnail(image) for image in compress(row, shown)])
        pictured = list(compress(columns, shown))
        names = [name for name in columns if name not in pictured]
        self.experiment.add_text(key, "\n".join([_line(names), _line("---" for _ in names), *lines]), 0)
        if pictured:
            self.experiment.add_text(f"{key}/columns", f"From left to right: {', '.join(pictured)}", 0)
            self.log_grid(key, _grid(pictures), 0, "")

    def log_figures(self, figures: Mapping[str, Any]) -> None:
        """Log scalars of step 0."""
        self.log_metrics(numbers(figures), 0)

    def finish(self) -> None:
        """Close the file, which `finalize` did after the training."""
        self.finalize("success")


def _line(cells: Iterable[Any]) -> str:
    texts = [f"{cell:.4g}" if isinstance(cell, float) else " ".join(str(cell).split()) for cell in cells]
    return f"| {' | '.join(text.replace('|', '&#124;') for text in texts)} |"


def _grid(pictures: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Rows of images in cells of one size."""
    width, height = (max(image.size[axis] for row in pictures for image in row) for axis in (0, 1))
    grid = Image.new("RGB", (width * len(pictures[0]), height * len(pictures)))
    for y, row in enumerate(pictures):
        for x, image in enumerate(row):
            grid.paste(image, (x * width, y * height))
    return grid
