"""Batches of rows that have prompts, whatever the rows are, as a LightningDataModule."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from lightning import LightningDataModule

from golden_noise.errors import UserError
from golden_noise.pairs.dataset import Batches
from golden_noise.pairs.loader import NoisePairLoader
from golden_noise.pairs.order import Split, split_counts, steps_per_rank


class StreamingDataModule(LightningDataModule, ABC):
    """Training and validation batches: split by prompt, each row on one rank, in an order that can be resumed.

    Args:
        batch_size: rows per batch and rank.
        val_fraction: share of prompts kept for validation, between 0 and 1.
        seed: of the order.
        shuffle_shards: shards that are read at a time and whose rows are shuffled with each other.
        num_workers: processes per rank and split that read ahead, as torch's DataLoader takes it, like the next three.
            None of the four changes the batches.
        prefetch_factor: batches that each worker reads ahead.
        persistent_workers: whether workers stay for the next epoch, with what they know of the shards.
        pin_memory: whether batches are put into page-locked memory, where there is a CUDA device to copy them to.
    """

    def __init__(
        self,
        batch_size: int,
        val_fraction: float = 0.1,
        seed: int = 0,
        shuffle_shards: int = 16,
        num_workers: int = 2,
        prefetch_factor: int = 2,
        persistent_workers: bool = True,
        pin_memory: bool = True,
    ):
        super().__init__()
        self.batch_size, self.val_fraction, self.seed = batch_size, val_fraction, seed
        self.shuffle_shards = shuffle_shards
        self.options = {"num_workers": num_workers, "pin_memory": pin_memory and torch.cuda.is_available()}
        if num_workers:  # else a DataLoader refuses them
            self.options |= {"prefetch_factor": prefetch_factor, "persistent_workers": persistent_workers}
        self._loaders: list[NoisePairLoader] = []

    @abstractmethod
    def dataset(self, split: Split, max_open: int = 1) -> Batches:
        """What the batches of a split are read from, with so many shards open at a time."""

    def teardown(self, stage: str) -> None:
        """End the workers."""
        while self._loaders:
            self._loaders.pop().close()

    def on_exception(self, exception: BaseException) -> None:
        self.teardown("fit")

    def train_dataloader(self) -> NoisePairLoader:
        """The training rows, in a new order every epoch, or in a fixed one when Lightning is to overfit."""
        trainer = self.trainer
        overfit = trainer is not None and trainer.overfit_batches > 0  # type: ignore[attr-defined]
        # After a checkpoint made at the end of an epoch `current_epoch` is one behind; `processed` is not.
        progress = trainer.fit_loop.epoch_progress.current if trainer else None
        epoch = progress.processed if progress else 0  # type: ignore[attr-defined]
        return self._loader("train", 0 if overfit else self.shuffle_shards, epoch)

    def val_dataloader(self) -> NoisePairLoader:
        """The validation rows, in the order of the index."""
        return self._loader("val")

    def prompts(self, split: Split, count: int) -> list[str]:
        """The texts of a split in its order, each once, at most `count`; for after `setup`."""
        loader, texts = self._loader(split), dict[str, None]()
        for order in loader.plan(0):
            texts |= dict.fromkeys(loader.dataset.read(0, order)["prompt"])
            if len(texts) >= count:
                break
        loader.dataset.close()
        return list(texts)[:count]

    def _loader(self, split: Split, shuffle_shards: int = 0, epoch: int = 0) -> NoisePairLoader:
        loader = NoisePairLoader(
            self.dataset(split, max(1, shuffle_shards)),
            split,
            self.val_fraction,
            self.batch_size,
            shuffle_shards=shuffle_shards,
            seed=self.seed,
            rank=self.trainer.global_rank if self.trainer else 0,
            world_size=self.trainer.world_size if self.trainer else 1,
            epoch=epoch,
            **self.options,
        )
        self._loaders.append(loader)
        return loader

    def check_sizes(self, holder: str, rows: str, more: str, splits: Sequence[Split] = ("train", "val")) -> None:
        """Refuse too few rows for a batch of each split on every rank.

        Args:
            holder: what holds them, for the message.
            rows: what they are, likewise.
            more: how to get more.
            splits: that are needed.
        """
        counts = split_counts(self.dataset("train").hashes, self.val_fraction)
        sizes = f"{holder} holds {counts['train']} training and {counts['val']} validation {rows}"
        ranks = self.trainer.world_size if self.trainer else 1
        if not steps_per_rank(counts["train"], "train", self.batch_size, ranks):
            raise UserError(
                f"{sizes}, too few for one training batch of {self.batch_size} on each of {ranks} ranks:"
                f" {more}, or lower data.batch_size or data.val_fraction"
            )
        validated = "val" not in splits or steps_per_rank(counts["val"], "val", self.batch_size, ranks)
        if not validated:  # a rank would wait for the others' metrics
            raise UserError(
                f"{sizes}, too few for one validation batch on each of {ranks} ranks:"
                f" {more}, or raise data.val_fraction"
            )
