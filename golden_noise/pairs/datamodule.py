"""The noise pairs of a folder as a LightningDataModule."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from golden_noise.errors import UserError
from golden_noise.pairs.index import INDEX_NAME, ShardIndex, differences
from golden_noise.pairs.pair import NoisePair
from golden_noise.pairs.reader import Batch, NoisePairDataset, Split, format_shape, read_shard


class NoisePairLoader:
    """Batches of a dataset, with a position that Lightning stores in checkpoints and restores.

    Each iteration is the next epoch; the first one after `load_state_dict` goes on where the checkpoint was
    made. It is not a DataLoader, so Lightning neither replaces its sampler nor warns about the length of a
    stream.
    """

    def __init__(self, dataset: NoisePairDataset, num_workers: int = 0, epoch: int = 0):
        self.stream = dataset
        self.loader = DataLoader(
            _PassErrors(dataset),
            batch_size=None,
            num_workers=num_workers,
            pin_memory=torch.cuda.is_available(),
        )
        self.epoch, self.batch = epoch, 0
        self._resumed = False

    def __len__(self) -> int:
        """Batches of this rank in a whole epoch."""
        return len(self.stream)

    def __iter__(self) -> Iterator[Batch]:
        # An iterator that was never used does not count as an epoch: Lightning sometimes makes one too many.
        if self.batch and not self._resumed:
            self.epoch, self.batch = self.epoch + 1, 0
        self._resumed = False
        return self._batches()

    def _batches(self) -> Iterator[Batch]:
        self.stream.start_at(self.epoch, self.batch)
        for batch in self.loader:
            if isinstance(batch, UserError):
                raise batch
            self.batch += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The next batch to return, as the epoch and the number of this rank's batches before it."""
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Make the next iteration begin at a stored position; the end of an epoch is the next one's start."""
        epochs, self.batch = divmod(state["batch"], len(self))
        self.epoch = state["epoch"] + epochs
        self._resumed = True


class _PassErrors(IterableDataset[Batch | UserError]):
    """Hands a worker's UserError over as an item: raised there, it would come out as a traceback's text."""

    def __init__(self, dataset: NoisePairDataset):
        self.dataset = dataset

    def __iter__(self) -> Iterator[Batch | UserError]:
        try:
            yield from self.dataset
        except UserError as error:
            if get_worker_info() is None:
                raise
            yield error


class NoisePairDataModule(LightningDataModule):
    """Streams the accepted pairs of a folder, split by prompt into training and validation.

    A batch has `noise` and `golden` (B, C, H, W), `embeds` (B, L, D), `pooled` (B, P) if its shape is given, all
    float32, and `key`, B sample names.

    Args:
        data_dir: folder that holds `index.json` and the shards.
        batch_size: pairs per batch and rank.
        latent_shape: (C, H, W) of the pipeline's noise.
        embeds_shape: (L, D) of the pipeline's prompt embedding.
        pooled_shape: (P,) of its pooled embedding, for an NPNet that takes it.
        val_fraction: share of prompts kept for validation, between 0 and 1.
        shuffle_buffer: raw samples that each worker holds for shuffling.
        num_workers: loader processes per rank; does not change the batches.
        seed: of the order of the pairs.
        collect: called on the first rank before the folder is read, to collect what is missing; restartable.
        collect_hint: command to show when there are no pairs and no `collect`.
        pipeline: what the folder's configuration must have under `pipeline`; not compared when None.
    """

    def __init__(
        self,
        data_dir: str | Path,
        batch_size: int,
        latent_shape: Sequence[int],
        embeds_shape: Sequence[int],
        pooled_shape: Sequence[int] | None = None,
        val_fraction: float = 0.1,
        shuffle_buffer: int = 512,
        num_workers: int = 0,
        seed: int = 0,
        collect: Callable[[], object] | None = None,
        collect_hint: str = "python collect.py",
        pipeline: Mapping[str, Any] | str | None = None,
    ):
        super().__init__()
        self.prepare_data_per_node = False  # nodes share the folder: two must not collect the same units
        self.folder = Path(data_dir)
        self.batch_size, self.num_workers = batch_size, num_workers
        self.latent_shape, self.embeds_shape = tuple(latent_shape), tuple(embeds_shape)
        self.pooled_shape = None if pooled_shape is None else tuple(pooled_shape)
        self.val_fraction, self.shuffle_buffer, self.seed = val_fraction, shuffle_buffer, seed
        self.collect, self.collect_hint = collect, collect_hint
        self.pipeline = pipeline

    def prepare_data(self) -> None:
        """Collect what is missing, if `collect` was given.

        Raises:
            UserError: if it was not and there are no pairs.
        """
        if self.collect is not None:
            self.collect()
        elif not (self.folder / INDEX_NAME).exists():
            raise UserError(f"no noise pairs in {self.folder}: run `{self.collect_hint}` first")

    def setup(self, stage: str) -> None:
        """Check the folder before anything is trained on it.

        Raises:
            UserError: if a shard is missing or truncated, the pairs are another pipeline's, or too few.
        """
        self.index = ShardIndex.load(self.folder)
        for shard in self.index.shards:
            shard.verify(self.folder)
        self._check_pipeline()
        self._check_shapes()
        self._check_sizes()

    def train_dataloader(self) -> NoisePairLoader:
        """The training pairs, in a new order every epoch, or in a fixed one when Lightning is to overfit."""
        trainer = self.trainer
        overfit = trainer is not None and trainer.overfit_batches > 0  # type: ignore[attr-defined]
        dataset = self._dataset("train", shuffle_buffer=0 if overfit else self.shuffle_buffer)
        # After a checkpoint made at the end of an epoch `current_epoch` is one behind; `processed` is not.
        progress = trainer.fit_loop.epoch_progress.current if trainer else None
        epoch = progress.processed if progress else 0  # type: ignore[attr-defined]
        return NoisePairLoader(dataset, self.num_workers, epoch)

    def val_dataloader(self) -> NoisePairLoader:
        """The validation pairs, in the order of the index."""
        return NoisePairLoader(self._dataset("val"), self.num_workers)

    def _dataset(self, split: Split, shuffle_buffer: int = 0) -> NoisePairDataset:
        return NoisePairDataset(
            self.folder,
            self.index.shards,
            split,
            self.val_fraction,
            self.batch_size,
            self.latent_shape,
            self.embeds_shape,
            self.pooled_shape,
            shuffle_buffer=shuffle_buffer,
            seed=self.seed,
            rank=self.trainer.global_rank if self.trainer else 0,
            world_size=self.trainer.world_size if self.trainer else 1,
        )

    def _check_pipeline(self) -> None:
        if self.pipeline is None:
            return
        if changes := differences(self.index.config.get("pipeline"), self.pipeline, "pipeline"):
            key, have, want = changes[0]
            raise UserError(
                f"pairs in {self.folder} were collected with {key}={have}, but this run has {key}={want}:"
                " choose that pipeline or another data_dir"
            )

    def _check_shapes(self) -> None:
        """Compare the first pair only: the others are checked when their turn comes."""
        samples = (sample for shard in self.index.shards for sample in read_shard(self.folder, shard))
        if (sample := next(samples, None)) is None:
            raise UserError(f"{self.folder} holds no accepted pairs: run `{self.collect_hint}`")
        pair = NoisePair.from_sample(sample)
        assert pair.noise is not None  # the reader leaves rejected pairs out
        pooled = None if self.pooled_shape is None else pair.pooled  # not looked at unless it is needed
        have = _describe(pair.noise.shape, *(None if part is None else part.shape for part in (pair.embeds, pooled)))
        want = _describe(self.latent_shape, self.embeds_shape, self.pooled_shape)
        if have != want:
            raise UserError(
                f"pairs in {self.folder} are {have}, but this run's pipeline needs {want}:"
                " choose the pipeline they were collected with or another data_dir"
            )

    def _check_sizes(self) -> None:
        train, val = self._dataset("train"), self._dataset("val")
        sizes = f"{self.folder} holds {train.num_pairs} training and {val.num_pairs} validation pairs"
        ranks = train.world_size
        if train.num_batches == 0:
            raise UserError(
                f"{sizes}, too few for one training batch of {self.batch_size} on each of {ranks} ranks:"
                " collect more, or lower data.batch_size or data.val_fraction"
            )
        if val.num_batches < ranks:  # a rank without a batch would wait for the others' metrics forever
            raise UserError(
                f"{sizes}, too few for one validation batch on each of {ranks} ranks:"
                " collect more prompts, raise data.val_fraction or lower data.batch_size"
            )


def _describe(noise: Sequence[int], embeds: Sequence[int] | None, pooled: Sequence[int] | None) -> str:
    parts = {"embeddings": embeds, "pooled embeddings": pooled}
    found = " and ".join(f"{format_shape(shape)} {name}" for name, shape in parts.items() if shape is not None)
    return f"{format_shape(noise)} with {found or 'no embeddings'}"
