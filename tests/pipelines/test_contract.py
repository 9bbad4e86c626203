"""What every pipeline in conf/pipeline has to keep, on tiny random builds saved to disk."""

from dataclasses import dataclass
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file

from golden_noise.cli import CONF
from golden_noise.config import check
from golden_noise.noise import draw_noise, sampler_generators
from golden_noise.pipelines.base import Pipeline
from golden_noise.search.path import SamplerPath

PROMPTS = ["a red circle above a blue square", "two crosses"]
NOISE = draw_noise([0, 1], (4, 8, 8))
NAMES = sorted(file.stem for file in (CONF / "pipeline").glob("*.yaml"))

# The published denoisers, as their configs on the hub describe them.
SD = {
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}
SD15 = SD | {"attention_head_dim": 8, "cross_attention_dim": 768, "sample_size": 64}
SD21 = SD | {"attention_head_dim": (5, 10, 20, 20), "cross_attention_dim": 1024, "use_linear_projection": True}
SDXL = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 1280 + 6 * 256,
}
UNETS = {
    "sd15": SD15,
    "sd21": SD21 | {"sample_size": 96},
    "sd21_base": SD21 | {"sample_size": 64},
    "sdxl_turbo": SDXL | {"sample_size": 64},
}
# The samplers that the models come with, where it is not SDXL's.
OWN_SCHEDULERS = {
    "shapes": {"name": "DDIMScheduler"},
    "sd15": {"name": "PNDMScheduler", "skip_prk_steps": True},
    "sd21": {"name": "DDIMScheduler", "prediction_type": "v_prediction"},
    "sd21_base": {"name": "PNDMScheduler", "skip_prk_steps": True},
}


def configured(name, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("generate", [f"pipeline={name}", "device=cpu", "folder=images", *overrides])


@dataclass
class Case:
    """One config on its tiny build: our pipeline, and the same by diffusers alone."""

    name: str
    ours: Pipeline
    plain: DiffusionPipeline

    @property
    def call(self):
        """The config's sampler settings as diffusers names them, with fewer steps where there are many."""
        settings = {"num_inference_steps": min(self.ours.steps, 4), "guidance_scale": self.ours.guidance}
        return settings | {"height": 32, "width": 32, "output_type": "pt"}

    def sample(self, prompt, seeds=(0, 1), **options):
        return self.ours.sample(prompt, NOISE, min(self.ours.steps, 4), generator=sampler_generators(seeds), **options)


@pytest.fixture(scope="module")
def prepare(tiny_sdxl, tiny_sd, tmp_path_factory):
    """Writes the tiny build of a config to disk, and gives the class of diffusers, the folder and the config."""

    def write(name):
        folder = tmp_path_factory.mktemp(name)
        tiny = [f"pipeline.model.source={folder}", "pipeline.height=32", "pipeline.width=32"]
        config = configured(name, "++pipeline.model.variant=null", *tiny).pipeline
        sd = "stable_diffusion" in config.model._target_
        kind, models = (StableDiffusionPipeline, tiny_sd) if sd else (StableDiffusionXLPipeline, tiny_sdxl)
        pipe = kind.from_pretrained(models)
        settings = dict(OWN_SCHEDULERS.get(name, {"name": "EulerDiscreteScheduler"}))
        scheduler = getattr(diffusers, settings.pop("name"))
        pipe.scheduler = scheduler.from_config(pipe.scheduler.config, **settings)
        pipe.save_pretrained(folder)
        for part, distil in {"unet": write_unet, "lora": write_lora}.items():
            if config.model.get(part):
                config.model[part].source = str(folder / "distilled")
                distil(pipe, folder / "distilled" / config.model[part].weight_name)
        return kind, folder, config

    return write


def write_unet(pipe, file):
    torch.manual_seed(1)
    file.parent.mkdir(parents=True)
    changed = {key: x + 0.05 * torch.randn_like(x) for key, x in pipe.unet.state_dict().items()}
    save_file(changed, file)


def write_lora(pipe, file):
    torch.manual_seed(1)
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(pipe.unet))
    pipe.save_lora_weights(file.parent, unet_lora_layers=layers, weight_name=file.name)


def by_diffusers(kind, folder, model):
    """The pipeline of a config, set up as the models' cards do it."""
    pipe = kind.from_pretrained(folder)
    if model.get("scheduler"):
        settings = dict(model.scheduler)
        pipe.scheduler = getattr(diffusers, settings.pop("name")).from_config(pipe.scheduler.config, **settings)
    if model.get("unet"):
        weights = Path(model.unet.source) / model.unet.weight_name
        pipe.unet.load_state_dict(diffusers.models.model_loading_utils.load_state_dict(weights))
    if model.get("lora"):
        pipe.load_lora_weights(model.lora.source, weight_name=model.lora.weight_name)
        pipe.fuse_lora()
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module", params=NAMES)
def case(request, prepare):
    kind, folder, config = prepare(request.param)
    return Case(request.param, instantiate(config.model), by_diffusers(kind, folder, config.model))


@pytest.fixture(scope="module")
def prompt(case):
    return case.ours.encode(PROMPTS)


def test_encoding_is_the_pipelines_own(case, prompt):
    expected = case.plain.encode_prompt(
        PROMPTS, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True
    )
    found = [prompt.embeds, prompt.negative.embeds, prompt.pooled, prompt.negative.pooled]
    found = [part for part in found if part is not None]
    assert len(found) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert prompt.texts == tuple(PROMPTS)


def test_an_image_is_the_diffusers_call_bit_for_bit(case, prompt):
    expected = case.plain(PROMPTS, latents=NOISE, generator=sampler_generators([0, 1]), **case.call).images
    images = case.sample(prompt)
    assert torch.equal(images, expected)
    assert images.shape == (2, 3, 32, 32)
    assert images.std() > 0.01


def test_the_same_generators_give_the_same_image(case, prompt):
    images = case.sample(prompt)
    assert torch.equal(case.sample(prompt), images)
    stochastic = case.name in ("lcm", "sdxl_turbo")  # one step of Euler's ancestral sampler ends without noise
    if stochastic and case.ours.steps > 1:
        assert not torch.equal(case.sample(prompt, seeds=[2, 1]), images)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_predicted_noise_leads_where_ddim_leads(case, prompt, guidance):
    """All of `encode`, `timesteps`, `predict_noise` and DDIM's levels, against a sampler of diffusers."""
    path, latents = SamplerPath.of(case.ours, prompt, 5), NOISE
    for step in range(5):
        latents = path.down(latents, step, guidance)
    own = case.plain.scheduler
    spacing = case.ours.schedule._scheduler.config.timestep_spacing
    ddim = DDIMScheduler.from_config(own.config, clip_sample=False, set_alpha_to_one=False, timestep_spacing=spacing)
    case.plain.scheduler = ddim
    settings = case.call | {"num_inference_steps": 5, "guidance_scale": guidance, "output_type": "latent"}
    expected = case.plain(PROMPTS, latents=NOISE, **settings).images
    case.plain.scheduler = own
    torch.testing.assert_close(latents, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("steps", [2, 10, 50])
def test_inversion_undoes_a_step_of_ddim(case, prompt, steps):
    start, following = case.ours.schedule.timesteps(steps)[:2].tolist()
    with torch.inference_mode():
        output = case.ours.denoise(NOISE, start, prompt)
    below = case.ours.schedule._scheduler.step(output, start, NOISE).prev_sample
    noise = case.ours.predict(NOISE, start, prompt, 1)
    move = case.ours.schedule.move
    torch.testing.assert_close(move(NOISE, noise, start, following), below, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(move(below, noise, following, start), NOISE, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["sdxl_lightning", "lcm", "pcm"])
def test_distilled_weights_change_the_model(name, prepare):
    _, _, config = prepare(name)
    distilled = instantiate(config.model)
    config.model.unet = config.model.lora = None
    base = instantiate(config.model)
    prompt = base.encode(PROMPTS)
    gap = distilled.predict(NOISE, 801, prompt, 1) - base.predict(NOISE, 801, prompt, 1)
    assert gap.std() > 1e-3
    assert distilled.denoiser.state_dict().keys() == base.denoiser.state_dict().keys()  # adapters are merged


@pytest.mark.parametrize("name", [name for name in NAMES if name != "shapes"])
def test_shapes_in_the_config_fit_the_published_model(name):
    config = configured(name)
    check(config)
    config = config.pipeline
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(**UNETS.get(name, SDXL))
        latents, embeds = torch.zeros(2, *config.latent_shape), torch.zeros(2, *config.embeds_shape)
        added = None
        if config.pooled_shape is not None:
            added = {"text_embeds": torch.zeros(2, *config.pooled_shape), "time_ids": torch.zeros(2, 6)}
        with torch.no_grad():
            assert unet(latents, 1, embeds, added_cond_kwargs=added).sample.shape == latents.shape
    size = unet.config.sample_size
    assert tuple(config.latent_shape) == (unet.config.in_channels, size, size)
    assert config.embeds_shape[0] == 77  # CLIP's
    assert config.recipe.conv_in == unet.conv_in.out_channels


@pytest.mark.parametrize("name", NAMES)
def test_settings_reach_the_pipeline(name):
    config = configured(name, "pipeline.guidance=1.5", "pipeline.steps=3", "pipeline.negative_prompt=dull").pipeline
    assert config.name == name
    assert {"height", "width", "steps", "guidance", "guidance_rescale"} <= config.model.keys()
    assert (config.model.guidance, config.model.steps, config.model.negative_prompt) == (1.5, 3, "dull")
    if name != "shapes":
        assert config.model.revision == "main"
        for part in ("unet", "lora"):
            assert config.model[part] is None or config.model[part].keys() == {"source", "weight_name", "revision"}
