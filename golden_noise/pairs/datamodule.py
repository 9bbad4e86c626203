"""The noise pairs of a folder or URL as a LightningDataModule."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from golden_noise.errors import UserError
from golden_noise.identity import differences
from golden_noise.invocation import command
from golden_noise.pairs.dataset import Batch, NoisePairDataset
from golden_noise.pairs.embeddings import Encode, PromptEncoder
from golden_noise.pairs.index import INDEX_NAME, ShardIndex
from golden_noise.pairs.order import Split
from golden_noise.pairs.reader import OpenShard, format_shape
from golden_noise.pairs.source import ShardSource
from golden_noise.pairs.streaming import StreamingDataModule


class NoisePairDataModule(StreamingDataModule):
    """Streams the accepted pairs of a folder or URL, split by prompt into training and validation.

    A batch that a LightningModule gets has `noise` and `golden` (B, C, H, W), `embeds` (B, L, D) and, if its shape is
    given, `pooled` (B, P), all in the module's dtype, and `key` and `prompt`, B names and texts.

    Args:
        data_dir: as `ShardSource` takes it.
        latent_shape: (C, H, W) of the pipeline's noise.
        embeds_shape: (L, D) of the pipeline's prompt embedding.
        pooled_shape: (P,) of its pooled embedding, for an NPNet that takes it.
        cache: folder for shards that are fetched from a URL.
        embeddings: "stored" reads those stored with the pairs, "encode" encodes prompts when a batch needs them.
        embeds_cache: how many prompts' embeddings to keep on the device when they are encoded.
        encode: encodes them.
        collect: called on the first rank before the folder is read, to collect what is missing; restartable.
        collect_hint: command to show when there are no pairs and no `collect`.
        pipeline: what the folder's configuration must have under `pipeline`; not compared when None.
        metrics: as `NoisePairDataset` takes it.
        options: of `StreamingDataModule`.

    Raises:
        UserError: `data_dir` cannot be read as one, or `embeddings` is neither.
    """

    def __init__(
        self,
        data_dir: str | Path,
        latent_shape: Sequence[int],
        embeds_shape: Sequence[int],
        pooled_shape: Sequence[int] | None = None,
        cache: str | Path | None = None,
        embeddings: Literal["stored", "encode"] = "stored",
        embeds_cache: int = 1024,
        encode: Encode | None = None,
        collect: Callable[[], object] | None = None,
        collect_hint: str = command("collect"),
        pipeline: Mapping[str, Any] | str | None = None,
        metrics: Sequence[str] = (),
        **options: Any,
    ):
        super().__init__(**options)
        self.prepare_data_per_node = False  # nodes share the folder: two must not collect the same units
        self.source = ShardSource(data_dir, cache)
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
        self.collect, self.collect_hint = collect, collect_hint
        self.pipeline, self.metrics = pipeline, list(metrics)

    def prepare_data(self) -> None:
        """Collect what is missing, if `collect` was given; else there must be pairs."""
        if not self.source.is_whole_folder:
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
        self.check_sizes(str(self.source), "pairs", "collect more")

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

    def dataset(self, split: Split, max_open: int = 1) -> NoisePairDataset:
        """The pairs of a split, read from up to `max_open` shards at a time."""
        return NoisePairDataset(self.source, self.index.shards, self.shapes, max_open, self.metrics)

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


def _describe(shapes: Mapping[str, Sequence[int]], wanted: Mapping[str, object]) -> str:
    names = {"embeds": "embeddings", "pooled": "pooled embeddings"}
    parts = [f"{format_shape(shapes[key])} {name}" for key, name in names.items() if key in shapes and key in wanted]
    return f"{format_shape(shapes['noise'])} with {' and '.join(parts) or 'no embeddings'}"
