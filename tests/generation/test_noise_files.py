"""Starting noise in files: saved, drawn from again, and not trusted."""

import io
import json
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from golden_noise.errors import UserError
from golden_noise.generation.job import generate
from golden_noise.generation.noise_files import read_noise, save_noise
from golden_noise.images import about
from golden_noise.noise import draw_noise
from golden_noise.npnet import NPNet

SHAPE = (4, 8, 12)
NOISE = draw_noise([0, 1, 2], SHAPE)


def refusal(path, count=3):
    with pytest.raises(UserError) as raised:
        read_noise(str(path), SHAPE, count)
    assert str(raised.value).startswith(f"noise_file={path}") and "\n" not in str(raised.value)
    return str(raised.value)


def test_what_was_saved_is_read(tmp_path):
    save_noise(NOISE[1].double(), tmp_path / "né.safetensors", {"prompt": "ein Löwe"})
    assert torch.equal(read_noise(str(tmp_path / "né.safetensors"), SHAPE, 3), NOISE[1:2])
    with safe_open(tmp_path / "né.safetensors", "pt") as file:
        assert json.loads(file.metadata()["about"]) == {"prompt": "ein Löwe"}


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2"])
@pytest.mark.parametrize("noise", [NOISE, NOISE[0], NOISE[:1]], ids=["each", "bare", "one"])
def test_arrays_of_numpy(tmp_path, dtype, noise):
    array = noise.numpy().astype(dtype)
    np.save(tmp_path / "n.npy", array)
    np.savez(tmp_path / "one.npz", x=array)
    np.savez_compressed(tmp_path / "named.npz", noise=array, x=np.zeros(3))
    expected = torch.from_numpy(array.astype("<f4")).reshape(-1, *SHAPE)
    for name in ("n.npy", "one.npz", "named.npz"):
        assert torch.equal(read_noise(str(tmp_path / name), SHAPE, 3), expected)


def test_tensors_of_half_precision(tmp_path):
    save_file({"latents": NOISE.bfloat16()}, tmp_path / "n.safetensors")
    assert torch.equal(read_noise(str(tmp_path / "n.safetensors"), SHAPE, 3), NOISE.bfloat16().float())


def test_files_that_are_not_what_they_should_be(tmp_path):
    assert "does not exist" in refusal(tmp_path / "none.npy")
    assert "name too long" in refusal(tmp_path / ("x" * 300 + ".npy"))
    for name in ("n.pt", "n", "n.ckpt"):
        (tmp_path / name).write_bytes(pickle.dumps([1]))
        assert "must end with .safetensors, .npy or .npz" in refusal(tmp_path / name)
    for ending in ("npy", "npz", "safetensors"):
        for content in (b"", b"\x93NUMPY", b"PK\x03\x04", b"\xff" * 40, b"<html>"):
            (tmp_path / f"n.{ending}").write_bytes(content)
            assert "cannot be read" in refusal(tmp_path / f"n.{ending}")
    np.save(tmp_path / "n.npy", np.array([{}], dtype=object), allow_pickle=True)
    assert "cannot be read" in refusal(tmp_path / "n.npy")


def test_arrays_that_do_not_fit(tmp_path):
    for array in (NOISE[:2], NOISE[:, :3], NOISE[..., :8], NOISE[:0], NOISE[0, 0], NOISE.flatten(1)):
        np.save(tmp_path / "n.npy", array.numpy())
        assert "neither (4, 8, 12) nor (3, 4, 8, 12)" in refusal(tmp_path / "n.npy")
    for dtype, name in (("i4", "int32"), ("?", "bool")):
        np.save(tmp_path / "n.npy", np.zeros((3, *SHAPE), dtype))
        assert f"holds {name} and no noise" in refusal(tmp_path / "n.npy")
    for value in (np.nan, np.inf, 1e300):
        np.save(tmp_path / "n.npy", np.where(np.arange(12) == 3, value, NOISE.double().numpy()))
        assert "not finite" in refusal(tmp_path / "n.npy")
    np.savez(tmp_path / "n.npz", a=NOISE.numpy(), b=NOISE.numpy())
    assert "holds a, b: give it one array" in refusal(tmp_path / "n.npz")
    save_file({}, tmp_path / "n.safetensors")
    assert "holds nothing" in refusal(tmp_path / "n.safetensors")


def test_files_larger_than_they_can_need_to_be_are_not_read(tmp_path):
    np.save(tmp_path / "n.npy", np.zeros((1000, *SHAPE)))
    assert "far more than the noise" in refusal(tmp_path / "n.npy")
    np.savez_compressed(tmp_path / "n.npz", x=np.zeros((10_000, *SHAPE)))
    assert (tmp_path / "n.npz").stat().st_size < 10**6 and "unpacks to" in refusal(tmp_path / "n.npz")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**7, 10**6)})
    (tmp_path / "n.npy").write_bytes(header.getvalue())
    assert "cannot be read" in refusal(tmp_path / "n.npy")
    with zipfile.ZipFile(tmp_path / "n.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    assert "cannot be read" in refusal(tmp_path / "n.npz")


def test_a_bomb_that_states_a_false_size_is_not_unpacked(tmp_path):
    file, true = tmp_path / "bömb.npz", 64 * 2**20
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("noise.npy", bytes(true))
    data = file.read_bytes()
    assert data.count(struct.pack("<I", true)) == 2  # the two headers
    file.write_bytes(data.replace(struct.pack("<I", true), struct.pack("<I", 1000)))
    tracemalloc.start()
    try:
        assert "cannot be read" in refusal(file)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "array", [NOISE.numpy().astype("longdouble"), np.array(["é"]), np.zeros(3, ",".join(["f4", "U9"] * 9))]
)
def test_numbers_that_torch_does_not_have_cost_a_short_line(tmp_path, array):
    np.save(tmp_path / "n.npy", array)
    if array.dtype.itemsize == 8 and array.dtype.kind == "f":
        pytest.skip("long doubles are doubles here")
    message = refusal(tmp_path / "n.npy")
    assert "which torch does not have: save float32" in message and len(message) < len(str(tmp_path)) + 120


def test_latents_that_a_sampler_has_scaled_are_warned_of(tmp_path, capsys):
    np.save(tmp_path / "n.npy", 14 * (NOISE / NOISE.std()).numpy())
    read_noise(str(tmp_path / "n.npy"), SHAPE, 3)
    assert "standard deviation 14;" in capsys.readouterr().err


# In the job ----------------------------------------------------------------------------------------------------


@pytest.fixture
def run(compose_job, tmp_path):
    """Runs the job on the miniature with a network that moves the noise, in the folder of a name."""
    torch.manual_seed(0)
    network = NPNet((4, 8, 8), (16, 128))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    network.save_pretrained(tmp_path / "train")

    def draw(name, *overrides):
        folder = tmp_path / name
        options = [f"npnet={tmp_path}/train", "pipeline.steps=2", "prompt=a red circle", f"folder={folder}", *overrides]
        generate(compose_job("generate", *options))
        return folder

    return draw


def pixels(path):
    return np.asarray(Image.open(path))


def alike(path, other):
    """Whether two pictures are the same but for rounding: an image alone and one of two have other last bits."""
    return np.abs(pixels(path).astype(int) - pixels(other)).max() <= 1


def test_from_saved_noise_the_same_pictures_are_drawn(run):
    first = run("first", "seeds=[3,4]", "save_noise=true")
    assert torch.equal(load_file(first / "standard/000000_seed3.safetensors")["noise"], draw_noise([3], (4, 8, 8)))
    golden = first / "golden/000001_seed4.safetensors"
    again = run("again", "noise=standard", "seed=4", f"noise_file={golden}")
    assert alike(again / "standard/000000_seed4.png", first / "golden/000001_seed4.png")
    assert not alike(first / "standard/000001_seed4.png", first / "golden/000001_seed4.png")
    standard = first / "standard/000001_seed4.safetensors"
    both = run("both", "seed=4", f"noise_file={standard}")
    for kind in ("standard", "golden"):
        assert alike(both / kind / "000000_seed4.png", first / kind / "000001_seed4.png")
    assert not [*both.rglob("*.safetensors")]
    assert len(about(both / "golden/000000_seed4.png")["made_by"]["noise_file"]) == 64
    assert "noise_file" not in about(first / "golden/000000_seed3.png")["made_by"]


def test_one_noise_for_each_image_in_batches(run, tmp_path):
    np.savez(tmp_path / "all.npz", noise=draw_noise([3, 4, 5], (4, 8, 8)).numpy())
    options = ["noise=golden", "seeds=[3,4,5]", "batch_size=2"]
    seeds, file = run("seeds", *options), run("file", *options, f"noise_file={tmp_path}/all.npz", "save_noise=true")
    for name in ("000000_seed3.png", "000001_seed4.png", "000002_seed5.png"):
        assert (pixels(seeds / "golden" / name) == pixels(file / "golden" / name)).all()
    assert len([*file.glob("golden/*.safetensors")]) == 3


def test_noise_that_was_not_saved_is_drawn_again(run):
    folder = run("x", "noise=golden")
    run("x", "noise=golden", "save_noise=true")
    saved = folder / "golden/000000_seed0.safetensors"
    before = saved.read_bytes()
    saved.unlink()
    run("x", "noise=golden", "save_noise=true")
    assert saved.read_bytes() == before
    assert json.loads((folder / "metadata.jsonl").read_text())["file_name"] == "golden/000000_seed0.png"


def test_images_of_other_noise_are_not_mixed(run, tmp_path):
    for value in (0, 1):
        np.save(tmp_path / "n.npy", draw_noise([value], (4, 8, 8)).numpy())
        if value == 0:
            run("x", "noise=standard", f"noise_file={tmp_path}/n.npy")
    with pytest.raises(UserError, match="was made with other noise in noise_file: give another name"):
        run("x", "noise=standard", f"noise_file={tmp_path}/n.npy")
    with pytest.raises(UserError, match="noise_file"):
        run("x", "noise=standard")


def test_saved_noise_is_what_a_diffusers_script_takes(run, tiny_sdxl, tmp_path):
    """And what it started from itself can be saved for the job."""
    options = [f"pipeline.model.source={tiny_sdxl}", "pipeline.guidance=3.0", "noise=golden", "save_noise=true"]
    folder = run("x", *options)
    pipe = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    latents = load_file(folder / "golden/000000_seed0.safetensors")["noise"]
    image = pipe("a red circle", latents=latents, num_inference_steps=2, guidance_scale=3.0).images[0]
    assert (np.asarray(image) == pixels(folder / "golden/000000_seed0.png")).all()
