"""The noise pairs of a folder or URL as a LightningDataModule."""

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import LightningDataModule

from golden_noise.errors import UserError
from golden_noise.identity import differences
from golden_noise.pairs.dataset import Batch, NoisePairDataset
from golden_noise.pairs.embeddings import Encode, PromptEncoder
from golden_noise.pairs.index import INDEX_NAME, ShardIndex
from golden_noise.pairs.loader import NoisePairLoader
from golden_noise.pairs.order import Split, split_of, steps_per_rank
from golden_noise.pairs.reader import OpenShard, format_shape
from golden_noise.pairs.source import ShardSource


class NoisePairDataModule(LightningDataModule):
    """Streams the accepted pairs of a folder or URL, split by prompt into training and validation.

    A batch that a LightningModule gets has `noise` and `golden` (B, C, H, W), `embeds` (B, L, D) and, if its shape is
    given, `pooled` (B, P), all in the module's dtype, and `key` and `prompt`, B names and texts.

    Args:
        data_dir: as `ShardSource` takes it.
        batch_size: pairs per batch and rank.
        latent_shape: (C, H, W) of the pipeline's noise.
        embeds_shape: (L, D) of the pipeline's prompt embedding.
        pooled_shape: (P,) of its pooled embedding, for an NPNet that takes it.
        cache: folder for shards that are fetched from a URL.
        embeddings: "stored" reads those stored with the pairs, "encode" encodes prompts when a batch needs them.
        embeds_cache: how many prompts' embeddings to keep on the device when they are encoded.
        encode: encodes them.
        val_fraction: share of prompts kept for validation, between 0 and 1.
        shuffle_shards: shards that are read at a time and whose pairs are shuffled with each other.
        num_workers: processes per rank and split that read ahead, as torch's DataLoader takes it, like the next three.
            None of the four changes the batches.
        prefetch_factor: batches that each worker reads ahead.
        persistent_workers: whether workers stay for the next epoch, with what they know of the shards.
        pin_memory: whether batches are put into page-locked memory, where there is a CUDA device to copy them to.
        seed: of the order of the pairs.
        collect: called on the first rank before the folder is read, to collect what is missing; restartable.
        collect_hint: command to show when there are no pairs and no `collect`.
        pipeline: what the folder's configuration must have under `pipeline`; not compared when None.

    Raises:
        UserError: `data_dir` cannot be read as one, or `embeddings` is neither.
    """

    def __init__(
        self,
        data_dir: str | Path,
        batch_size: int,
        latent_shape: Sequence[int],
        embeds_shape: Sequence[int],
        pooled_shape: Sequence[int] | None = None,
        cache: str | Path | None = None,
        embeddings: Literal["stored", "encode"] = "stored",
        embeds_cache: int = 1024,
        encode: Encode | None = None,
        val_fraction: float = 0.1,
        shuffle_shards: int = 16,
        num_workers: int = 2,
        prefetch_factor: int = 2,
        persistent_workers: bool = True,
        pin_memory: bool = True,
        seed: int = 0,
        collect: Callable[[], object] | None = None,
        collect_hint: str = "python collect.py",
        pipeline: Mapping[str, Any] | str | None = None,
    ):
        super().__init__()
        self.prepare_data_per_node = False  # nodes share the folder: two must not collect the same units
        self.source = ShardSource(data_dir, cache)
        self.batch_size = batch_size
        self.options = {"num_workers": num_workers, "pin_memory": pin_memory and torch.cuda.is_available()}
        if num_workers:  # else a DataLoader refuses them
            self.options |= {"prefetch_factor": prefetch_factor, "persistent_workers": persistent_workers}
        self.shapes = {"noise": tuple(latent_shape), "golden": tuple(latent_shape)}
        if embeddings not in ("stored", "encode"):
            raise UserError(f"data.embeddings={embeddings} must be stored or encode")
        self.encoder = None
        if embeddings == "encode":
            assert encode is not None, "embeddings='encode' needs a function `encode`"
            self.encoder = PromptEncoder(encode, embeds_cache, pooled=pooled_shape is not None)
        else:
            self.shapes["embeds"] = tuple(embeds_shape)
            if pooled_shape is not None:
                self.shapes["pooled"] = tuple(pooled_shape)
        self.val_fraction, self.shuffle_shards, self.seed = val_fraction, shuffle_shards, seed
        self.collect, self.collect_hint = collect, collect_hint
        self.pipeline = pipeline
        self._loaders: list[NoisePairLoader] = []

    def prepare_data(self) -> None:
        """Collect what is missing, if `collect` was given; else there must be pairs."""
        if self.source.is_url or self.source.names is not None:
            return  # what was chosen is there, or else `setup` says so
        if self.collect is not None:
            self.collect()
        elif not (self.source.folder / INDEX_NAME).exists():
            raise UserError(f"no noise pairs in {self.source}: run `{self.collect_hint}` first")

    def setup(self, stage: str) -> None:
        """Check the pairs before training.

        Raises:
            UserError: if a shard is missing or truncated, the pairs are another pipeline's, or too few.
        """
        self.index = self._load_index()
        self._check_pipeline()
        self._check_shapes()
        self._check_sizes()

    def _load_index(self) -> ShardIndex:
        """The first rank's: if pairs are being added, ranks with different indexes would wait for each other."""
        if self.trainer is None:
            return self.source.load_index()
        index: ShardIndex | UserError | None = None
        if self.trainer.is_global_zero:
            try:
                index = self.source.load_index()
            except UserError as error:
                index = error
        index = self.trainer.strategy.broadcast(index)
        if isinstance(index, UserError):
            raise index
        assert index is not None
        return index

    def teardown(self, stage: str) -> None:
        """End the workers."""
        while self._loaders:
            self._loaders.pop().close()

    def on_exception(self, exception: BaseException) -> None:
        self.teardown("fit")

    def train_dataloader(self) -> NoisePairLoader:
        """The training pairs, in a new order every epoch, or in a fixed one when Lightning is to overfit."""
        trainer = self.trainer
        overfit = trainer is not None and trainer.overfit_batches > 0  # type: ignore[attr-defined]
        # After a checkpoint made at the end of an epoch `current_epoch` is one behind; `processed` is not.
        progress = trainer.fit_loop.epoch_progress.current if trainer else None
        epoch = progress.processed if progress else 0  # type: ignore[attr-defined]
        return self._loader("train", 0 if overfit else self.shuffle_shards, epoch)

    def val_dataloader(self) -> NoisePairLoader:
        """The validation pairs, in the order of the index."""
        return self._loader("val")

    def _loader(self, split: Split, shuffle_shards: int = 0, epoch: int = 0) -> NoisePairLoader:
        loader = NoisePairLoader(
            NoisePairDataset(self.source, self.index.shards, self.shapes, max_open=max(1, shuffle_shards)),
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

    def prompts(self, split: Split, count: int) -> list[str]:
        """The texts of a split in the order of the index, each once, at most `count`; for after `setup`."""
        dataset, texts = NoisePairDataset(self.source, self.index.shards, {}), dict[str, None]()
        for order in self._loader(split).plan(0):
            texts |= dict.fromkeys(dataset.read(0, order)["prompt"])
            if len(texts) >= count:
                break
        dataset.close()
        return list(texts)[:count]

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """On the device, embeddings that were not stored are added, and everything is cast to the module's dtype."""
        if self.encoder is not None:
            batch = batch | self.encoder(batch["prompt"], batch["noise"].device)
        module = self.trainer.lightning_module if self.trainer else None
        dtype = module.dtype if module else torch.float32
        return {name: value.to(dtype) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}

    def _check_pipeline(self) -> None:
        if self.pipeline is None:
            return
        if changes := differences(self.index.config.get("pipeline"), self.pipeline, "pipeline"):
            key, have, want = changes[0]
            raise UserError(
                f"pairs in {self.source} were collected with {key}={have}, but this run has {key}={want}:"
                " choose that pipeline or another data_dir"
            )

    def _check_shapes(self) -> None:
        """Compare the first pair only: the others are checked when their turn comes."""
        entry = next((shard for shard in self.index.shards if shard.samples), None)
        if entry is None:
            raise UserError(f"{self.source} holds no accepted pairs: run `{self.collect_hint}`")
        with contextlib.closing(OpenShard(self.source.open(entry), entry, self.source.url(entry.name))) as shard:
            shapes = shard.shapes(0)
        if self.shapes == {name: shape for name, shape in shapes.items() if name in self.shapes}:
            return
        advice = "choose the pipeline they were collected with or another data_dir"
        if "embeds" not in shapes:
            advice += ", or encode prompts with data.embeddings=encode"
        have, want = _describe(shapes, self.shapes), _describe(self.shapes, self.shapes)
        raise UserError(f"pairs in {self.source} are {have}, but this run's pipeline needs {want}: {advice}")

    def _check_sizes(self) -> None:
        hashes = [prompt for shard in self.index.shards for prompt in shard.prompts]
        pairs = Counter(split_of(prompt, self.val_fraction) for prompt in hashes)
        sizes = f"{self.source} holds {pairs['train']} training and {pairs['val']} validation pairs"
        ranks = self.trainer.world_size if self.trainer else 1
        if not steps_per_rank(pairs["train"], "train", self.batch_size, ranks):
            raise UserError(
                f"{sizes}, too few for one training batch of {self.batch_size} on each of {ranks} ranks:"
                " collect more, or lower data.batch_size or data.val_fraction"
            )
        if not steps_per_rank(
            pairs["val"], "val", self.batch_size, ranks
        ):  # a rank without a batch would wait for the others' metrics forever
            raise UserError(
                f"{sizes}, too few for one validation batch on each of {ranks} ranks:"
                " collect more prompts, or raise data.val_fraction"
            )


def _describe(shapes: Mapping[str, Sequence[int]], wanted: Mapping[str, object]) -> str:
    names = {"embeds": "embeddings", "pooled": "pooled embeddings"}
    parts = [f"{format_shape(shapes[key])} {name}" for key, name in names.items() if key in shapes and key in wanted]
    return f"{format_shape(shapes['noise'])} with {' and '.join(parts) or 'no embeddings'}"
