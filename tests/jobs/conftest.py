"""Jobs on the real config tree and a tiny random pipeline."""

import pytest
from hydra import compose, initialize_config_dir

from golden_noise.cli import CONF


@pytest.fixture
def compose_job(tiny_sdxl, tmp_path):
    """Composes the config of a job for the random pipeline; all output goes below tmp_path."""

    def compose_config(job, *overrides):
        places = [f"paths.outputs={tmp_path}/outputs"]
        if job in ("collect", "train"):
            places.append(f"data_dir={tmp_path}/pairs")
        if job != "collect":
            places += [f"folder={tmp_path}/run", "name=test"]
        if job == "train":
            places += ["logger=csv", "evaluate=false", "sample_every_n_epochs=0"]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            common = [f"pipeline.model.source={tiny_sdxl}", "device=cpu"]
            return compose(job, [*common, *places, *overrides])

    return compose_config
