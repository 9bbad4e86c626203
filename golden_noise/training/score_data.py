"""Prompts with the scores that people gave to their candidates."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from golden_noise.generation.candidates import Group, Origin, read_table, table_rows
from golden_noise.pairs.dataset import Batch
from golden_noise.pairs.order import Order, Split
from golden_noise.pipelines.lazy import LazyPipeline
from golden_noise.sharing.processes import is_first
from golden_noise.training.prompt_data import PromptDataModule, PromptDataset

EQUAL = 1e-12  # a deviation of scores, relative to the largest of their group, that is but rounding


def standardised(scores: Tensor) -> Tensor:
    """Scores (B, group), float64, less their group's mean, over its deviation; NaN, for none, stays.

    They are 0 where all of a group are equal. Only float64 tells all scores apart that people may give, however large
    or small, and what comes of it fits float32.
    """
    largest = scores.abs().nan_to_num().amax(dim=1, keepdim=True)
    scaled = scores / largest.clamp_min(torch.finfo(scores.dtype).tiny)
    centred = scaled - scaled.nanmean(dim=1, keepdim=True)
    deviation = centred.square().nanmean(dim=1, keepdim=True).sqrt()
    return torch.where(deviation > EQUAL, centred / deviation, 0 * centred)


class ScoredDataset(PromptDataset):
    """Prompts with the noise of their own seed, `seed`, and what their candidates were scored.

    `scores` are (B, group) float32, see `standardised`, and `sigma` (B,) is the spread of each group.
    """

    def __init__(self, groups: Sequence[Group], shape: Sequence[int], seed: int):
        super().__init__([group.prompt for group in groups], shape, seed, fresh=False)
        self.groups = groups

    def read(self, epoch: int, order: Order) -> Batch:
        groups = [self.groups[row] for row in order[:, 1].tolist()]
        scores = [[float("nan") if score is None else score for score in group.scores] for group in groups]
        return super().read(epoch, order) | {
            "seed": [group.prompt.seed for group in groups],
            "scores": standardised(torch.tensor(scores, dtype=torch.float64)).float(),
            "sigma": torch.tensor([group.sigma for group in groups]),
        }


class ScoredDataModule(PromptDataModule):
    """Batches of `ScoredDataset`. All groups are learned from: what people like cannot be validated.

    Args:
        path: of the table of scores; see `read`.

    Raises:
        UserError: there is no table.
    """

    def __init__(self, path: str, pipeline: LazyPipeline, latent_shape: Sequence[int], **options: object):
        super().__init__((), pipeline, latent_shape, **options, val_fraction=0.0)
        table_rows(Path(path).expanduser())  # before a model is loaded
        self.path, self.groups = path, list[Group]()

    def read(self, by: Origin) -> None:
        """Read the table, all of whose images the given network and pipeline must have drawn; see `read_table`.

        Says how many of the groups that were drawn have scores: whole ones may be missing.
        """
        self.groups, drawn = read_table(self.path, by)
        self.all_prompts = [group.prompt for group in self.groups]
        if is_first():
            print(f"{self.path}: {len(self.groups)} of {drawn} groups scored")

    def dataset(self, split: Split, max_open: int = 1) -> ScoredDataset:
        return ScoredDataset(self.groups, self.latent_shape, self.seed)

    def setup(self, stage: str) -> None:
        """As `PromptDataModule`."""
        self.check_sizes(self.path, "scored groups", "score more", splits=("train",))

    def val_dataloader(self) -> list:  # type: ignore[override]
        """None."""
        return []
