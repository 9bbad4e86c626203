"""A pipeline that is loaded when it is first needed."""

import pytest
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from golden_noise.pipelines.lazy import LazyPipeline
from golden_noise.pipelines.sdxl import SDXLPipeline

SETTINGS = {
    "_target_": "golden_noise.pipelines.sdxl.SDXLPipeline.load",
    **{"device": "cpu", "height": 32, "width": 32, "steps": 2, "guidance": 1.0},
}


def lazy(source):
    return LazyPipeline(OmegaConf.create(SETTINGS | {"source": str(source)}))


def test_it_is_loaded_once_and_passes_for_a_pipeline(tiny_sdxl):
    pipeline = lazy(tiny_sdxl)
    assert isinstance(pipeline.loaded, SDXLPipeline)
    assert pipeline.loaded is pipeline.loaded is pipeline.loaded.loaded


def test_nothing_is_loaded_before(tmp_path):
    pipeline = lazy(tmp_path / "none")
    with pytest.raises(InstantiationException, match="no folder"):
        _ = pipeline.loaded
