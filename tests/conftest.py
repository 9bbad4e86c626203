"""What every test gets: no network, and no leftovers of the test before."""

import atexit
import os
import pickle
import shutil
import tempfile
from io import StringIO

os.environ |= {
    "TRACKIO_DIR": tempfile.mkdtemp(prefix="trackio-"),  # it asks once where its store is
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
    # A worker per core (pytest-xdist): more threads than cores slow each other down manyfold.
    "OMP_NUM_THREADS": "1",
}

import pytest
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from omegaconf import OmegaConf
from yaml import YAMLError

atexit.register(shutil.rmtree, os.environ["TRACKIO_DIR"], ignore_errors=True)
pytest_plugins = ("tests.tiny_pipelines", "tests.jobs", "tests.object_storage")


def pytest_runtest_setup(item):
    """`pytest -m gpu` passes over what it cannot run."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session", autouse=True)
def files_are_parsed_once():
    """Hydra reads thirty files for each config; parsing them is a third of the time."""
    load, parsed = OmegaConf.load, {}

    def load_once(file):
        if not hasattr(file, "read"):
            return load(file)
        text = file.read()
        try:
            if text not in parsed:
                parsed[text] = pickle.dumps(load(StringIO(text)))
        except YAMLError:
            file.seek(0)
            return load(file)  # with the file's name in the error
        return pickle.loads(parsed[text])

    OmegaConf.load = staticmethod(load_once)
    yield
    OmegaConf.load = staticmethod(load)


@pytest.fixture(autouse=True)
def clean_process():
    """Undoes what a test left behind: environment, random states, determinism, process group."""
    environment = dict(os.environ)
    with isolate_rng():
        yield
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    torch.use_deterministic_algorithms(False)
    os.environ.clear()
    os.environ.update(environment)
