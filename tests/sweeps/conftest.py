"""What trainings of a tiny pipeline need."""

import pytest

SMALL = [
    "debug=limited",
    "search=redenoise",
    "prompts.count=80",
    "recipe=shapes",
    "collection.select_by=null",
    "recipe.batch_size=8",
    "recipe.backbone_args.embed_dim=16",
    "recipe.backbone_args.depth=1",
    "trainer.limit_train_batches=2",
    "trainer.limit_val_batches=1",
    "data.val_fraction=0.4",
    "callbacks.progress.refresh_rate=0",
    "trainer.log_every_n_steps=1",
    "device=cpu",
    "num_threads=1",
]


@pytest.fixture
def small(tiny_sdxl, tmp_path):
    """Settings of a training that takes a second, with all its output below tmp_path."""
    places = [f"paths.outputs={tmp_path}/outputs", f"data_dir={tmp_path}/pairs"]
    return [*SMALL, *places, f"pipeline.model.source={tiny_sdxl}"]
