import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import diffusers
import huggingface_hub
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from golden_noise.device import pick_device
from golden_noise.errors import UserError
from golden_noise.pipelines.sdxl import SDXLPipeline
from golden_noise.pipelines.stable_diffusion import SDPipeline

from .loaded import refusal


@pytest.fixture
def copy(tiny_sdxl, tmp_path):
    return shutil.copytree(tiny_sdxl, tmp_path / "copy")


def test_loaded_in_the_dtype_asked_for(tiny_sdxl):
    settings = {"height": 32, "width": 32, "steps": 2, "guidance": 1.0}
    assert SDXLPipeline.load(str(tiny_sdxl), device="cpu", **settings).dtype == torch.float32
    half = SDXLPipeline.load(str(tiny_sdxl), device="cpu", dtype="bfloat16", **settings)
    assert half.dtype == half.encode(["a circle"]).embeds.dtype == torch.bfloat16


def test_missing_folder(tmp_path):
    assert "pipeline.model.source" in refusal(tmp_path / "none")


def test_folder_that_is_no_pipeline(tmp_path):
    message = refusal(tmp_path)
    assert str(tmp_path) in message
    assert "model_index.json" in message


def test_pipeline_of_another_class(sdxl, tmp_path):
    parts = {name: sdxl.pipe.components[name] for name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")}
    StableDiffusionPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    ).save_pretrained(tmp_path)
    message = refusal(tmp_path)
    assert "holds a StableDiffusionPipeline" in message
    assert "StableDiffusionXLPipeline" in message


def test_broken_index(copy):
    (copy / "model_index.json").write_text("{")
    assert str(copy) in refusal(copy)


@pytest.mark.parametrize("part", ["unet", "vae/diffusion_pytorch_model.safetensors"])
def test_missing_part(copy, part):
    path = copy / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert part.split("/")[0] in refusal(copy)


def test_pickled_weights_are_not_read(copy):
    weights = copy / "unet/diffusion_pytorch_model.safetensors"
    torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()
    assert "safetensors" in refusal(copy)


def test_a_folder_without_the_variants_files_gives_its_plain_ones(tiny_sdxl, capsys):
    plain, other = load(tiny_sdxl), load(tiny_sdxl, variant="fp16")
    assert capsys.readouterr().err.count("has no fp16 files: loading its plain ones") == 1
    assert torch.equal(other.denoiser.conv_in.weight, plain.denoiser.conv_in.weight)


def test_a_variants_files_are_read_where_there_are_such(tiny_sdxl, copy, capsys):
    tensors = load_file(copy / "unet/diffusion_pytorch_model.safetensors")
    tensors["conv_in.bias"] += 1
    save_file(tensors, copy / "unet/diffusion_pytorch_model.fp16.safetensors", {"format": "pt"})
    other = load(copy, variant="fp16")
    torch.testing.assert_close(other.denoiser.conv_in.bias, load(tiny_sdxl).denoiser.conv_in.bias + 1)
    assert "plain ones" not in capsys.readouterr().err


def test_from_the_hubs_cache_without_the_variants_files(tiny_sdxl, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(diffusers.pipelines.pipeline_utils, "HF_HUB_CACHE", str(tmp_path), raising=False)
    repository = tmp_path / "models--ORG--NAME"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("0" * 40)
    shutil.copytree(tiny_sdxl, repository / "snapshots" / ("0" * 40))
    load("ORG/NAME", variant="fp16", revision="main")
    assert "plain ones" in capsys.readouterr().err


def test_a_folder_below_the_home(tiny_sdxl, monkeypatch):
    monkeypatch.setenv("HOME", str(tiny_sdxl.parent))
    assert load(f"~/{tiny_sdxl.name}").latent_shape == (4, 8, 8)
    vae = load(tiny_sdxl, vae={"source": f"~/{tiny_sdxl.name}/vae"})
    assert vae.pipe.vae.config.latent_channels == 4


@pytest.mark.parametrize("part", ["unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"])
def test_weights_that_a_file_lacks_are_not_made_up(copy, part):
    file = copy / f"{part}.safetensors"
    tensors = load_file(file)
    lost = sorted(tensors)[len(tensors) // 2]
    del tensors[lost]
    save_file(tensors, file, {"format": "pt"})
    assert f"{copy} lacks 1 of its weights, such as {lost}" in refusal(copy)


def test_hub_id_without_network():
    message = refusal("nobody/no-such-model")
    assert "nobody/no-such-model" in message
    assert "HF_HUB_OFFLINE" in message


class Gate(BaseHTTPRequestHandler):
    """Answers as the hub does for a gated model whose licence was not accepted."""

    def do_HEAD(self):
        self.send_response(403)
        self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("X-Error-Message", "Access to this model is restricted.")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *_):
        pass


LOAD = """
from golden_noise.errors import UserError
from golden_noise.hub import answers
from golden_noise.pipelines.sdxl import SDXLPipeline
options = {"device": "cpu", "height": 32, "width": 32, "steps": 2, "guidance": 1.0}
for _ in range(2):
    try:
        SDXLPipeline.load("org/gated", **options)
    except UserError as error:
        print(error, flush=True)
    input()
    answers.cache_clear()  # as a process that starts now
"""


@pytest.mark.long
def test_a_gated_model_and_no_hub_at_all():
    """Against a hub of the test's own, and then against none."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Gate)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub = {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0"}
    hub["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_address[1]}"  # which is read when the library is loaded
    command, pipe = [sys.executable, "-c", LOAD], subprocess.PIPE
    with subprocess.Popen(command, env=os.environ | hub, stdin=pipe, stdout=pipe, text=True) as process:
        said = [process.stdout.readline().strip()]
        server.shutdown()
        server.server_close()
        said += [line.strip() for line in process.communicate("\n\n", timeout=120)[0].splitlines()]
    assert len(said) == 2
    assert (
        "cannot load org/gated: it is gated: accept its licence at https://huggingface.co/org/gated and log in"
        in said[0]
    )
    assert said[1].startswith("cannot load org/gated") and "pipeline.model.source" in said[1]


def test_impossible_hub_id():
    assert "a/b c" in refusal("a/b c")


def test_unknown_dtype(tiny_sdxl):
    assert "pipeline.model.dtype=float13" in refusal(tiny_sdxl, dtype="float13")


def test_devices():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else pick_device("auto").type)
    for device in ("gpu0", "cuda:99"):
        with pytest.raises(UserError, match=f"device={device}"):
            pick_device(device)


def load(source, **options) -> SDXLPipeline:
    return SDXLPipeline.load(str(source), device="cpu", height=32, width=32, steps=2, guidance=1.0, **options)


def test_scheduler_of_the_config_keeps_the_noise_schedule(tiny_sdxl):
    own = load(tiny_sdxl)
    other = load(tiny_sdxl, scheduler={"name": "EulerDiscreteScheduler", "use_karras_sigmas": True})
    assert isinstance(own.pipe.scheduler, DDIMScheduler)
    assert type(other.pipe.scheduler) is EulerDiscreteScheduler
    assert other.pipe.scheduler.config.use_karras_sigmas
    assert torch.equal(other.schedule.alphas_cumprod, own.schedule.alphas_cumprod)


def test_searches_get_the_spacing_even_where_the_sampler_has_none(tiny_sdxl):
    scheduler = {"name": "DPMSolverSinglestepScheduler", "timestep_spacing": "trailing"}
    assert load(tiny_sdxl, scheduler=scheduler).schedule.timesteps(4).tolist() == [999, 749, 499, 249]


@pytest.mark.parametrize("name", ["NoSuchScheduler", "SchedulerMixin", "UNet2DConditionModel", "__version__"])
def test_unknown_scheduler(tiny_sdxl, name):
    assert f"pipeline.model.scheduler.name={name}" in refusal(tiny_sdxl, scheduler={"name": name})


def test_unknown_argument_of_a_scheduler(tiny_sdxl):
    scheduler = {"name": "DDIMScheduler", "karras": True}
    assert "pipeline.model.scheduler.karras" in refusal(tiny_sdxl, scheduler=scheduler)


PARTS = {"unet": lambda weights: {"unet": weights}, "loras.w": lambda weights: {"loras": {"w": weights}}}


@pytest.mark.parametrize("option", PARTS)
def test_missing_distilled_weights(tiny_sdxl, tmp_path, option):
    part = PARTS[option]

    def refused(source, weight_name):
        return refusal(tiny_sdxl, **part({"source": str(source), "weight_name": weight_name}))

    assert f"pipeline.model.{option}.weight_name" in refused(tmp_path, "no.safetensors")
    assert f"pipeline.model.{option}.source" in refused(tmp_path / "none", "no.safetensors")
    assert "nobody/no-such-model" in refused("nobody/no-such-model", "no.safetensors")
    torch.save({}, tmp_path / "pickled.bin")
    assert "pickled.bin" in refused(tmp_path, "pickled.bin")


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("content", [b"", b"no tensors at all", None, "lora_B"])
def test_distilled_weights_of_something_else(tiny_sdxl, tmp_path, part, content):
    file, layer = tmp_path / "w.safetensors", "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is None:
        save_file({"other.weight": torch.zeros(3)}, file)
    else:  # adapters for a wider model
        save_file({f"{layer}.lora_A.weight": torch.zeros(2, 5), f"{layer}.lora_B.weight": torch.zeros(5, 2)}, file)
    assert "w.safetensors" in refusal(tiny_sdxl, **part({"source": str(tmp_path), "weight_name": "w.safetensors"}))


def test_stable_diffusion_of_another_class(tiny_sdxl):
    with pytest.raises(UserError, match=r"holds a StableDiffusionXLPipeline.*needs a StableDiffusionPipeline"):
        SDPipeline.load(str(tiny_sdxl), device="cpu", height=32, width=32, steps=2, guidance=1.0)


def test_steps_beyond_pure_noise_are_refused(tiny_sdxl):
    schedule = load(tiny_sdxl, scheduler={"name": "DDIMScheduler", "steps_offset": 1}).schedule
    assert schedule.timesteps(500).max() <= 999
    with pytest.raises(UserError, match="cannot give a search 1000 steps: the first would be beyond pure noise"):
        schedule.timesteps(1000)
