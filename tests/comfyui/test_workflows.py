"""What users build: workflows through the interface of a real server."""

import os
import shutil
from itertools import count

import pytest
import torch
from safetensors.torch import load_file, save_file

from golden_noise import golden_latents
from golden_noise.cli.convert import main as convert
from golden_noise.hub import PACKAGE
from golden_noise.npnet import NPNet
from tests.comfyui.workflow import Workflow

pytestmark = pytest.mark.comfy

PROMPT, OTHER = "a blue triangle left of a red circle", "two crosses"
CLOSE = {"atol": 1e-5, "rtol": 0}  # noise
DRAWN = {"atol": 1e-3, "rtol": 0}  # latents at the end of a sampling, which enlarges differences
RUNS = count()
SAMPLING = {"sampler_name": "euler", "scheduler": "normal"}


class Golden(Workflow):
    """A workflow that begins as every one here does."""

    def __init__(self, npnet="miniature", images=1, prompt=PROMPT, **settings):
        super().__init__()
        loaded = self.add("LoadMiniature")
        self.model, self.clip, self.vae = (loaded[i] for i in range(3))
        self.npnet = self.add("GoldenNoiseLoad", npnet=npnet)
        self.settings = {"strength": 1.0, "other_sizes": "tile", "long_prompt": "truncate"} | settings
        self.golden = self.add("GoldenNoiseApply", model=self.model, npnet=self.npnet, **self.settings)
        self.positive, self.negative = self.encode(prompt), self.encode("")
        self.latent = self.add("EmptyLatentImage", width=64, height=64, batch_size=images)
        self.prompts = {"positive": self.positive, "negative": self.negative}

    def encode(self, text):
        return self.add("CLIPTextEncode", clip=self.clip, text=text)

    def ksampler(self, model, seed=3, latent=None, **options):
        options = {"steps": 6, "cfg": 1.5, "denoise": 1.0, **SAMPLING, **options}
        return self.add(
            "KSampler", model=model, seed=seed, latent_image=latent or self.latent, **self.prompts, **options
        )

    def advanced(self, model, latent=None, start=0, end=100, noise="enable", leftover="disable"):
        stage = {"start_at_step": start, "end_at_step": end, "add_noise": noise, "return_with_leftover_noise": leftover}
        options = {"noise_seed": 3, "steps": 6, "cfg": 1.5, **SAMPLING, **stage, **self.prompts}
        return self.add("KSamplerAdvanced", model=model, latent_image=latent or self.latent, **options)

    def noise(self, seed=3, model=None):
        """Golden NOISE."""
        drawn, model = self.add("RandomNoise", noise_seed=seed), {"model": model or self.model}
        return self.add(
            "GoldenNoisePredict", noise=drawn, npnet=self.npnet, positive=self.positive, **self.settings, **model
        )

    def sigmas(self):
        return self.add("BasicScheduler", model=self.model, scheduler="normal", steps=6, denoise=1.0)

    def custom(self, model, noise, guider=None, sampler=None):
        guider = guider or self.add("CFGGuider", model=model, cfg=1.5, **self.prompts)
        sampler = sampler or self.add("KSamplerSelect", sampler_name="euler")
        inputs = {"noise": noise, "guider": guider, "sampler": sampler, "sigmas": self.sigmas()}
        return self.add("SamplerCustomAdvanced", latent_image=self.latent, **inputs)

    def given(self, model=None):
        """The noise that a sampler of the MODEL gets."""
        drawn = self.add("RandomNoise", noise_seed=3)
        return self.custom(model or self.golden, drawn, sampler=self.add("GivenNoise"))


@pytest.fixture
def latents(server):
    """Runs a workflow and returns the latents of the nodes that are named."""

    def run(workflow, *nodes):
        fresh = f"latents/{next(RUNS)}"  # else ComfyUI repeats nothing that it has in its cache
        saved = [workflow.add("SaveLatent", samples=node, filename_prefix=fresh) for node in nodes]
        outputs = server.run(workflow)
        files = [outputs[name]["latents"][0] for name in saved]
        return [load_file(server.base / "output" / f["subfolder"] / f["filename"])["latent_tensor"] for f in files]

    return run


@pytest.fixture(scope="module")
def models(base, plain):
    """The folder of networks, with that of `plain` too."""
    plain.save_pretrained(base / "models/npnet/plain")
    return base / "models/npnet"


def test_the_server_knows_the_nodes(server):
    info = server.get("/object_info")
    ours = {name: facts["display_name"] for name, facts in info.items() if facts["category"] == "golden noise"}
    assert ours == {
        "GoldenNoiseLoad": "Load NPNet",
        "GoldenNoiseApply": "Golden Noise",
        "GoldenNoisePredict": "Golden Noise (noise)",
        "GoldenNoiseScale": "Scale Noise",
    }
    for name in ours:
        assert server.get(f"/extensions/golden-noise/docs/{name}.md").startswith(b"# ")


@pytest.mark.parametrize("npnet", ["miniature", "plain"])
def test_samplers_get_the_packages_golden_noise(server, models, latents, pipe, plain, npnet):
    workflow = Golden(npnet)
    (given,) = latents(workflow, workflow.given())
    network = plain if npnet == "plain" else "package:shapes/weights/npnet"
    torch.testing.assert_close(given, golden_latents(network, pipe, PROMPT, 3), **CLOSE)


@pytest.mark.parametrize("npnet", ["miniature", "plain"])
def test_every_sampler_draws_the_same(models, latents, npnet):
    w = Golden(npnet, images=2)
    one = w.advanced(w.golden, end=3, leftover="enable")
    drawn = w.add("RandomNoise", noise_seed=3)
    euler = w.add("KSamplerSelect", sampler_name="euler")
    custom = {"add_noise": True, "noise_seed": 3, "cfg": 1.5, "sampler": euler, "sigmas": w.sigmas(), **w.prompts}
    noisy = w.add("AddNoise", model=w.model, noise=w.noise(), sigmas=w.sigmas(), latent_image=w.latent)
    plain, golden, *others, added = latents(
        w,
        w.ksampler(w.model),
        w.ksampler(w.golden),
        w.advanced(w.golden),
        w.advanced(w.golden, latent=one, start=3, noise="disable"),
        w.add("SamplerCustom", model=w.golden, latent_image=w.latent, **custom),
        w.custom(w.golden, drawn),
        w.custom(w.model, w.noise()),
        w.advanced(w.model, latent=noisy, noise="disable"),
    )
    assert (golden - plain).abs().max() > 0.1
    for other in others:
        torch.testing.assert_close(other, golden, **DRAWN)
    assert (added - golden).std() < 0.02 * golden.std()  # AddNoise itself is .2 % too weak


def test_every_image_of_a_batch_is_as_it_would_be_alone(latents):
    batch, alone = Golden(images=3), Golden()
    chosen = batch.add("LatentFromBatch", samples=batch.latent, batch_index=2, length=1)
    images, last = latents(batch, batch.ksampler(batch.golden), batch.ksampler(batch.golden, latent=chosen))
    (first,) = latents(alone, alone.ksampler(alone.golden))
    torch.testing.assert_close(images[:1], first, **DRAWN)
    torch.testing.assert_close(images[2:], last, **DRAWN)


def test_seeds_differ(latents):
    w = Golden()
    one, two = latents(w, w.ksampler(w.golden, seed=1), w.ksampler(w.golden, seed=2**40))
    assert (one - two).abs().max() > 0.1


@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_2m", "dpmpp_sde", "lcm", "ddim", "uni_pc"])
def test_samplers_of_all_kinds(latents, sampler):
    w = Golden()
    plain, golden = latents(w, *(w.ksampler(model, sampler_name=sampler) for model in (w.model, w.golden)))
    assert golden.isfinite().all()
    assert (golden - plain).abs().max() > 0.1


def test_prompts_that_are_combined_or_timed(models, latents):
    w = Golden("plain")
    first, second = w.positive, w.encode(OTHER)

    def given(positive):
        w.prompts = {"positive": positive, "negative": w.negative}
        return w.given()

    timed = [
        w.add("ConditioningSetTimestepRange", conditioning=each, start=start, end=end)
        for each, start, end in ((first, 0.0, 0.4), (second, 0.4, 1.0))
    ]
    one, two, both, turn = latents(
        w,
        given(first),
        given(second),
        given(w.add("ConditioningCombine", conditioning_1=first, conditioning_2=second)),
        given(w.add("ConditioningCombine", conditioning_1=timed[0], conditioning_2=timed[1])),
    )
    torch.testing.assert_close(both, (one + two) / 2, **CLOSE)
    torch.testing.assert_close(turn, one, **CLOSE)


@pytest.mark.parametrize("how", ["truncate", "average", "chain"])
def test_long_prompts(models, latents, how):
    w = Golden("plain", prompt=f"{PROMPT} and {PROMPT} above {OTHER}", long_prompt=how)
    long, short = latents(w, w.ksampler(w.golden), w.ksampler(w.model))
    assert (long - short).abs().max() > 0.1


@pytest.mark.parametrize("npnet", ["miniature", "plain"])
def test_other_sizes(models, latents, npnet):
    w = Golden(npnet)
    w.latent = w.add("EmptyLatentImage", width=96, height=64, batch_size=1)
    golden, plain = latents(w, w.ksampler(w.golden), w.ksampler(w.model))
    assert golden.shape == (1, 4, 8, 12)
    assert (golden - plain).abs().max() > 0.1


def test_from_an_image_nothing_changes(server, latents):
    w = Golden()
    image = w.add("VAEEncode", vae=w.vae, pixels=w.add("VAEDecode", vae=w.vae, samples=w.ksampler(w.model)))
    again = {"latent": image, "denoise": 0.5}
    golden, plain = latents(w, w.ksampler(w.golden, **again), w.ksampler(w.model, **again))
    assert torch.equal(golden, plain)
    assert "leaves the noise as it is: sampling starts from an image" in server.log.read_text()


def test_strength_and_the_constant(latents):
    none, w = Golden(strength=0.0), Golden()
    scaled, same = (w.add("GoldenNoiseScale", model=w.model, factor=factor) for factor in (0.7, 1.0))
    (zero,) = latents(none, none.ksampler(none.golden))
    plain, one, given = latents(w, w.ksampler(w.model), w.ksampler(same), w.given(scaled))
    assert torch.equal(zero, plain) and torch.equal(one, plain)
    (noise,) = latents(w, w.given(w.model))
    torch.testing.assert_close(given, 0.7 * noise, **CLOSE)


def test_files_are_listed_and_loaded_anew_without_a_restart(models, latents, server, plain):
    def listed():
        return server.get("/object_info/GoldenNoiseLoad")["GoldenNoiseLoad"]["input"]["required"]["npnet"][1]["options"]

    assert {"miniature", "plain"} <= {*listed()} and "changing" not in listed()
    other = NPNet((4, 8, 8), (16, 128))
    other.save_pretrained(models / "changing")
    assert "changing" in listed()
    w = Golden("changing")
    first, noise = latents(w, w.given(), w.given(w.model))
    torch.testing.assert_close(first, noise)  # a new network is the identity
    plain.save_pretrained(models / "changing")
    w = Golden("changing")
    (second,) = latents(w, w.given())
    assert (second - noise).abs().max() > 0.1
    shutil.rmtree(models / "changing")
    assert "changing" not in listed()


def test_files_of_the_other_packs_folder_are_listed(server, base):
    folder = base / "models/npnets"
    folder.mkdir(exist_ok=True)
    (folder / "theirs.pth").write_bytes(b"")
    (folder / "notes.txt").write_bytes(b"")
    options = server.get("/object_info/GoldenNoiseLoad")["GoldenNoiseLoad"]["input"]["required"]["npnet"][1]["options"]
    assert "theirs.pth" in options and "notes.txt" not in options
    (folder / "theirs.pth").unlink()


@pytest.mark.parametrize("npnet", ["miniature", "plain"])
def test_one_file_holds_the_whole_network(models, latents, npnet):
    convert([str(models / npnet), str(models / "one.safetensors")])
    folder, file = Golden(npnet), Golden("one.safetensors")
    (expected,), (given,) = latents(folder, folder.given()), latents(file, file.given())
    assert torch.equal(given, expected)
    (models / "one.safetensors").unlink()


def test_links_that_lead_nowhere_do_not_hide_the_others(server, models):
    (models / "linked").mkdir()
    for link in (models / "linked/gone.safetensors", models / "gone.safetensors"):
        link.symlink_to(models / "nowhere")
    options = server.get("/object_info/GoldenNoiseLoad")["GoldenNoiseLoad"]["input"]["required"]["npnet"][1]["options"]
    assert "miniature" in options and not any("gone" in name for name in options)
    (models / "gone.safetensors").unlink()
    shutil.rmtree(models / "linked")


def test_a_link_to_another_file_of_the_same_size_and_time_is_loaded_anew(models, latents, plain):
    link = models / "current.safetensors"
    given = []
    for name, network in {"one": NPNet((4, 8, 8), (16, 128)), "two": plain}.items():
        network.save_pretrained(models / name)
        convert([str(models / name), str(models / f"{name}.safetensors")])
        os.utime(models / f"{name}.safetensors", (1, 1))  # as some archives and package managers set it
        link.unlink(missing_ok=True)
        link.symlink_to(f"{name}.safetensors")
        w = Golden(link.name)
        given += latents(w, w.given())
    assert (given[0] - given[1]).abs().max() > 0.1
    for name in ("one", "two"):
        shutil.rmtree(models / name)
        (models / f"{name}.safetensors").unlink()
    link.unlink()


def wrong_files(folder):
    """Files that users take for a network, and what is said of each."""
    shutil.copy(PACKAGE / "shapes/weights/turbo/pytorch_lora_weights.safetensors", folder / "lora.safetensors")
    (folder / "text.safetensors").write_text("<html>not found</html>")
    (folder / "text.pth").write_text("<html>not found</html>")
    save_file({"model.diffusion_model.x": torch.zeros(4)}, folder / "checkpoint.safetensors")
    whole = (PACKAGE / "shapes/weights/npnet/diffusion_pytorch_model.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    return [path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".pth")]


def test_a_wrong_file_is_named_in_one_line(server, models):
    for name in wrong_files(models):
        w = Golden(name)
        w.add("PreviewImage", images=w.add("VAEDecode", vae=w.vae, samples=w.ksampler(w.golden)))
        message = server.error(w).strip()
        assert name in message and "\n" not in message and len(message) < 400, message
        os.unlink(models / name)


def test_a_network_of_another_model_is_named_in_one_line(server, models):
    NPNet((4, 64, 64), (77, 768), svd=False, backbone=None).save_pretrained(models / "sd15")
    w = Golden("sd15")
    w.add("PreviewImage", images=w.add("VAEDecode", vae=w.vae, samples=w.ksampler(w.golden)))
    message = server.error(w).strip()
    assert message.startswith("sd15 reads prompts of 77x768 (Stable Diffusion 1.5), this prompt has 16x128")
    assert "\n" not in message


@pytest.mark.parametrize("option", ["other_sizes", "long_prompt"])
def test_a_choice_that_there_is_not_is_named_in_one_line(server, option):
    w = Golden(**{option: "tiles"})
    w.add("PreviewImage", images=w.add("VAEDecode", vae=w.vae, samples=w.ksampler(w.golden)))
    assert server.error(w).strip().startswith(f"{option}: must be ")
