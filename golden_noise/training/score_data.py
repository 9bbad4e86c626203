"""Prompts with the scores that people gave to their candidates."""

from collections.abc import Sequence
from pathlib import Path

import torch

from golden_noise.generation.candidates import Group, Origin, read_table, table_rows
from golden_noise.pairs.dataset import Batch
from golden_noise.pairs.order import Order, Split
from golden_noise.pipelines.lazy import LazyPipeline
from golden_noise.training.prompt_data import PromptDataModule, PromptDataset


class ScoredDataset(PromptDataset):
    """Prompts with the noise of their own seed, `seed`, and what their candidates were scored.

    `scores` are (B, group) float32, NaN where there are none, and `sigma` (B,) is the spread of each group.
    """

    def __init__(self, groups: Sequence[Group], shape: Sequence[int], seed: int):
        super().__init__([group.prompt for group in groups], shape, seed, fresh=False)
        self.groups = groups

    def read(self, epoch: int, order: Order) -> Batch:
        groups = [self.groups[row] for row in order[:, 1].tolist()]
        scores = [[float("nan") if score is None else score for score in group.scores] for group in groups]
        return super().read(epoch, order) | {
            "seed": [group.prompt.seed for group in groups],
            "scores": torch.tensor(scores),
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
        """Read the table, all of whose images the given network and pipeline must have drawn; see `read_table`."""
        self.groups = read_table(self.path, by)
        self.all_prompts = [group.prompt for group in self.groups]

    def dataset(self, split: Split, max_open: int = 1) -> ScoredDataset:
        return ScoredDataset(self.groups, self.latent_shape, self.seed)

    def setup(self, stage: str) -> None:
        """As `PromptDataModule`."""
        self.check_sizes(self.path, "scored groups", "score more", splits=("train",))

    def val_dataloader(self) -> list:  # type: ignore[override]
        """None."""
        return []
