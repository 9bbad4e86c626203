"""Guided latents that are stored with pairs, for objectives that also draw."""

from collections.abc import Mapping
from typing import Any

from golden_noise.errors import UserError
from golden_noise.identity import ABSENT, Identity, differences
from golden_noise.pairs.datamodule import NoisePairDataModule
from golden_noise.pairs.dataset import Batch
from golden_noise.pipelines.lazy import LazyPipeline
from golden_noise.training.prompt_data import with_embedding

ROUNDING = ("dtype", "memory")  # of a pipeline: another GPU than that of the collection may need others


class GuidedDataModule(NoisePairDataModule):
    """Batches with `noise` and `guided` (B, C, H, W), `embedding`, all that the pipeline encodes, `key` and `prompt`.

    Args:
        loads: the pipeline that draws the images.
        made_by: what the collection must have had: the `model`, and `steps` and `guidance` as `guided`.
        options: of `NoisePairDataModule`.

    `setup` refuses pairs without such latents, or with those of other steps, guidance or another model.
    """

    def __init__(self, loads: LazyPipeline, made_by: Identity, **options: Any):
        super().__init__(**options)
        self.loads, self.made_by = loads, made_by
        noise = self.shapes["noise"]
        self.shapes, self.encoder = {"noise": noise, "guided": noise}, None

    def _check_shapes(self) -> None:
        have, want = (_sampling(made_by) for made_by in (self.index.config, self.made_by))
        if have["guided"] is None:
            asked = ",".join(f"{name}:{value}" for name, value in want["guided"].items())
            raise UserError(
                f"pairs in {self.source} hold no guided latents: collect some with collection.guided={{{asked}}}"
            )
        for key, old, new in differences(have, want):
            if ABSENT not in (old, new):
                raise UserError(
                    f"guided latents in {self.source} were collected with {key}={old}, but this run has {key}={new}: "
                    "choose these settings (objective.stored, pipeline) or another data_dir"
                )
        super()._check_shapes()

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Adds the encoded prompts, and casts to the module's dtype."""
        return with_embedding(super().on_after_batch_transfer(batch, dataloader_idx), self.loads.loaded)


def _sampling(made_by: Mapping[str, Any]) -> dict[str, Any]:
    model = {name: value for name, value in made_by.get("model", {}).items() if name not in ROUNDING}
    return {"guided": made_by.get("guided"), "model": model}
