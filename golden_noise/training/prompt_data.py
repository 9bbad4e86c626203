"""Prompts with fresh noise, for objectives that need no pairs."""

from collections.abc import Sequence

import numpy as np
import torch

from golden_noise.noise import draw_noise
from golden_noise.pairs import prompt_hash
from golden_noise.pairs.dataset import Batch, Batches
from golden_noise.pairs.order import Hashes, Order, Split
from golden_noise.pairs.streaming import StreamingDataModule
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.lazy import LazyPipeline
from golden_noise.prompts import Prompt


class PromptDataset(Batches):
    """Prompts, each with a noise: `noise` (B, C, H, W) float32 beside `key` and `prompt`.

    Args:
        shape: (C, H, W) of a noise.
        seed: of the noises.
        fresh: whether a prompt has another noise in every epoch, instead of that of its own seed.
    """

    def __init__(self, prompts: Sequence[Prompt], shape: Sequence[int], seed: int, fresh: bool):
        self.prompts, self.shape, self.seed, self.fresh = prompts, tuple(shape), seed, fresh

    @property
    def hashes(self) -> Sequence[Hashes]:
        return [np.array([int(prompt_hash(prompt.text), 16) for prompt in self.prompts], np.uint32)]

    def read(self, epoch: int, order: Order) -> Batch:
        rows = order[:, 1].tolist()
        seeds = [self._seed(epoch, row) for row in rows]
        return {
            "key": [f"{self.prompts[row].index:06d}" for row in rows],
            "prompt": [self.prompts[row].text for row in rows],
            "noise": draw_noise(seeds, self.shape),
        }

    def _seed(self, epoch: int, row: int) -> int:
        if not self.fresh:
            return self.prompts[row].seed
        return int(np.random.SeedSequence((self.seed, epoch, row)).generate_state(1)[0])


class PromptDataModule(StreamingDataModule):
    """Batches of prompts with noise, encoded by the pipeline as they are needed.

    A batch that a LightningModule gets has `noise` (B, C, H, W), rounded to the pipeline's dtype, `embedding`, a
    PromptEmbedding with all that the pipeline needs, and `key` and `prompt`.

    Args:
        prompts: to learn from, and to hold out.
        pipeline: that draws the images.
        latent_shape: (C, H, W) of its noise.
        options: of `StreamingDataModule`.
    """

    def __init__(
        self, prompts: Sequence[Prompt], pipeline: LazyPipeline, latent_shape: Sequence[int], **options: object
    ):
        super().__init__(**options, num_workers=0)  # type: ignore[arg-type]
        self.all_prompts, self.pipeline, self.latent_shape = prompts, pipeline, latent_shape

    def dataset(self, split: Split, max_open: int = 1) -> PromptDataset:
        return PromptDataset(self.all_prompts, self.latent_shape, self.seed, fresh=split == "train")

    def setup(self, stage: str) -> None:
        """Check that there are enough prompts.

        Raises:
            UserError: there are not.
        """
        self.check_sizes("prompts=", "prompts", "give more")

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Adds the encoded prompts, and rounds the noise as `Pipeline.draw_noise` does."""
        pipeline = self.pipeline.loaded
        module = self.trainer.lightning_module if self.trainer else None
        dtype = module.dtype if module else torch.float32
        return with_embedding(batch | {"noise": batch["noise"].to(pipeline.dtype).to(dtype)}, pipeline)


def with_embedding(batch: Batch, pipeline: Pipeline) -> Batch:
    """A batch with all that the pipeline encodes of its prompts."""
    return batch | {"embedding": pipeline.encode(batch["prompt"])}
