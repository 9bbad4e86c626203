"""ComfyUI in this process for what needs tensors, and as a server for what users do."""

import pytest
import torch

from tests.comfyui.engine import ENGINE, ROOT, missing, prepare
from tests.comfyui.server import Server, lay_out


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Adds what the server has logged to the report of a test that fails."""
    report = yield
    if server := getattr(item, "funcargs", {}).get("server"):
        logged = server.logged()
        if report.failed:
            report.sections.append(("ComfyUI's log", logged[-8000:]))
    return report


@pytest.fixture(scope="session")
def engine():
    """Says how to get ComfyUI if it is not there."""
    if reason := missing():
        pytest.fail(reason, pytrace=False)
    return ENGINE


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """Folder of models and nodes."""
    return lay_out(tmp_path_factory.mktemp("comfyui"))


@pytest.fixture(scope="session")
def server(engine, base):
    """A ComfyUI server, ended with the tests."""
    server = Server(base)
    try:
        server.wait()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def comfy(engine, tmp_path_factory):
    """ComfyUI's modules, importable in this process."""
    prepare(tmp_path_factory.mktemp("in_process"))


@pytest.fixture(scope="session")
def miniature(comfy):
    """The miniature as ComfyUI's MODEL, CLIP and VAE, in this process."""
    from tests.comfyui.in_process import Miniature

    return Miniature()


@pytest.fixture(scope="session")
def pipe():
    """The miniature as a diffusers pipeline."""
    from diffusers import StableDiffusionXLPipeline

    folder = ROOT / "golden_noise/shapes/weights/pipeline"
    return StableDiffusionXLPipeline.from_pretrained(folder, dtype=torch.float32, add_watermarker=False)


@pytest.fixture(scope="session")
def plain():
    """A network that shares nothing with the denoiser, as after some training, for any size."""
    from golden_noise.npnet import NPNet

    torch.manual_seed(0)
    npnet = NPNet((4, 8, 8), (16, 128), fit="tile")
    with torch.no_grad():
        for parameter in npnet.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return npnet.eval()
