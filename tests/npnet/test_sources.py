"""Where a network may be, as users name it."""

import zipfile
from pathlib import Path

import pytest
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config

from golden_noise.errors import UserError
from golden_noise.npnet import NPNet, checkpoint


@pytest.fixture(scope="module")
def npnet():
    torch.manual_seed(0)
    options = {"signs": "raw", "backbone_size": 224, "layout": "rows", "backbone_args": {}}
    return NPNet((4, 8, 8), (77, 2), backbone="swin_tiny_patch4_window7_224", **options)


def refusal(source, **options) -> str:
    with pytest.raises(UserError) as error:
        checkpoint.load(str(source), **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def home(npnet, tmp_path, monkeypatch):
    """A home folder with the network in a training run, and in a file of published weights."""
    monkeypatch.setenv("HOME", str(tmp_path))
    npnet.save_pretrained(tmp_path / "run/npnet/best")
    checkpoint.save(npnet, str(tmp_path / "published.pth"))
    checkpoint.save(npnet, str(tmp_path / "published.safetensors"))
    return tmp_path


@pytest.mark.parametrize("name", ["published.bin", "published.PTH", "published.ckpt", "published", "a.b/published.pt"])
def test_a_file_of_any_name_is_published_weights(home, npnet, name):
    (home / name).parent.mkdir(exist_ok=True)
    (home / "published.pth").rename(home / name)
    for source in (home / name, f"~/{name}"):
        assert torch.equal(checkpoint.load(str(source)).svd_branch.mlp3.weight, npnet.svd_branch.mlp3.weight)


def test_safetensors_may_be_written_large(home):
    (home / "published.safetensors").rename(home / "published.SAFETENSORS")
    assert checkpoint.load("~/published.SAFETENSORS").latent_shape == (4, 8, 8)


@pytest.mark.parametrize(
    "inside", ["", "npnet", "npnet/best", *(f"npnet/best/{name}" for name in checkpoint.IN_FOLDER)]
)
def test_a_run_and_all_within_it_stand_for_its_network(home, inside):
    for place in (home, "~"):
        assert checkpoint.load(f"{place}/run/{inside}").latent_shape == (4, 8, 8)


def test_a_folder_may_be_called_like_a_file(home):
    (home / "run").rename(home / "run.pth")
    assert checkpoint.load(str(home / "run.pth")).latent_shape == (4, 8, 8)


def test_a_network_of_ones_own_may_lie_at_home(home):
    assert checkpoint.load("golden_noise.npnet.NPNet:~/run").latent_shape == (4, 8, 8)


def test_what_a_training_resumes_from_names_the_folder_to_give(home):
    (home / "run/checkpoints").mkdir()
    content = {"pytorch-lightning_version": "2.6.0", "state_dict": {"npnet.alpha": torch.zeros(1)}, "epoch": 3}
    torch.save(content, home / "run/checkpoints/best.ckpt")
    assert refusal("~/run/checkpoints/best.ckpt").endswith(f"give the folder of its run, {home}/run")
    (home / "run/npnet").rename(home / "elsewhere")
    assert "let it end" in refusal(home / "run/checkpoints/best.ckpt")


@pytest.mark.parametrize("suffix", ["pth", "bin", "ckpt", "safetensors"])
@pytest.mark.parametrize("content", [b"", b"text", b"\x80\x02]", b"PK\x03\x04", b"\x00" * 100])
def test_files_without_tensors_cost_one_line(tmp_path, suffix, content):
    file = tmp_path / f"file.{suffix}"
    file.write_bytes(content)
    assert "no tensors" in refusal(file) or "not a published NPNet" in refusal(file)


def test_a_file_that_swells_is_not_unpacked(home):
    with (
        zipfile.ZipFile(home / "published.pth") as good,
        zipfile.ZipFile(home / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for record in good.infolist():
            bomb.writestr(record.filename, good.read(record) if "data.pkl" in record.filename else b"\0" * 10**6)
    assert "larger than the file" in refusal(home / "bomb.pth")


def test_places_without_a_network_cost_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no NPNet in" in refusal(tmp_path / "empty")
    for name in ("none", "none.bin", "none.ckpt"):
        assert "no folder" in refusal(tmp_path / name)
    assert "no file" in refusal(tmp_path / "none.PTH")
    assert f"no file {Path.home()}/none.pth" in refusal("~/none.pth")
    assert "is not a path" in refusal("~nobody-of-that-name/none") and "is not a path" in refusal("x" * 5000)
    assert "npnet is empty" in refusal("")
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"alone")
    assert "no tensors" in refusal(tmp_path / "diffusion_pytorch_model.safetensors")


class Plain(ModelMixin, ConfigMixin):
    """A network that knows no sizes."""

    config_name = "config.json"

    @register_to_config
    def __init__(self):
        super().__init__()
        self.gate = torch.nn.Parameter(torch.zeros(1))

    def golden(self, noise, prompt):
        return noise


def test_options_of_unknown_value_cost_one_line(home, tmp_path, monkeypatch):
    for source in (home / "run", home / "published.pth"):
        assert "fit: must be exact, tile, crop or resize, got 'stretch'" in refusal(source, fit="stretch")
        assert "attention=maybe" in refusal(source, attention="maybe")
    assert "target: must be golden" in refusal(home / "published.pth", target="noise")
    with pytest.raises(UserError, match="long_prompt: must be truncate, average or chain"):
        NPNet.from_single_file(str(home / "published.pth"), long_prompt="drop")
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    Plain().save_pretrained(tmp_path / "plain")
    assert isinstance(checkpoint.load(f"test_sources.Plain:{tmp_path}/plain").gate, torch.nn.Parameter)
    assert "holds a Plain; a network of your own needs" in refusal(tmp_path / "plain")
    assert "fit=tile" in refusal(f"test_sources.Plain:{tmp_path}/plain", fit="tile")
    assert "attention" in refusal(f"test_sources.Plain:{tmp_path}/plain", attention=False)
