"""What every pipeline in conf/pipeline has to keep, on tiny random builds saved to disk."""

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file

from golden_noise.cli.conf import choices
from golden_noise.cli.config import job_config
from golden_noise.cli.validation import check
from golden_noise.collecting.job import collect
from golden_noise.errors import UserError
from golden_noise.evaluation.job import evaluate
from golden_noise.generation.job import generate
from golden_noise.noise import draw_noise, sampler_generators
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.path import SamplerPath
from golden_noise.pipelines.schedules import Flow
from golden_noise.search.full_inversion import FullInversion
from golden_noise.search.redenoise import Redenoise
from golden_noise.search.rescale import Rescale
from golden_noise.search.zigzag import Zigzag
from golden_noise.training.job import train

PROMPTS = ["a red circle above a blue square", "two crosses"]
NEGATIVE = "a green triangle"
NAMES = choices("pipeline")
BUNDLED = ("shapes", "shapes_turbo")  # no published models

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
HUNYUAN = {
    "num_layers": 40,
    "hidden_size": 1408,
    "in_channels": 4,
    "patch_size": 2,
    "sample_size": 128,
    "mlp_ratio": 4.3637,
    "use_style_cond_and_image_meta_size": False,
}
SD35 = {
    "sample_size": 128,
    "num_layers": 24,
    "num_attention_heads": 24,
    "caption_projection_dim": 1536,
    "pos_embed_max_size": 384,
    "dual_attention_layers": tuple(range(13)),
    "qk_norm": "rms_norm",
}
DENOISERS = {
    "sd15": SD15,
    "sd21": SD21 | {"sample_size": 96},
    "sd21_base": SD21 | {"sample_size": 64},
    "sdxl_turbo": SDXL | {"sample_size": 64},
    "hunyuan_dit": HUNYUAN,
    "sd35": SD35,
    "flux": {"guidance_embeds": True},
}
# The samplers that the models come with, where it is not SDXL's.
OWN_SCHEDULERS = {
    "shapes": {"name": "DDIMScheduler"},
    "shapes_turbo": {"name": "DDIMScheduler"},
    "sd15": {"name": "PNDMScheduler", "skip_prk_steps": True},
    "sd21": {"name": "DDIMScheduler", "prediction_type": "v_prediction"},
    "sd21_base": {"name": "PNDMScheduler", "skip_prk_steps": True},
}
# The tiny builds, by the class of diffusers; all the others make 32 x 32 pixels.
BUILDS = {
    "StableDiffusionPipeline": "tiny_sd",
    "StableDiffusionXLPipeline": "tiny_sdxl",
    "HunyuanDiTPipeline": "tiny_hunyuan",
    "StableDiffusion3Pipeline": "tiny_sd3",
    "FluxPipeline": "tiny_flux",
}
SIZES = {"HunyuanDiTPipeline": 64}


def configured(name, *overrides):
    return job_config("generate", [f"pipeline={name}", "prompt=a cat", "device=cpu", "folder=images", *overrides])


def family(config):
    """Our class of a config's pipeline."""
    return get_class(config.model._target_.removesuffix(".load"))


@dataclass
class Case:
    """One config on its tiny build: our pipeline, and the same by diffusers alone."""

    name: str
    ours: Pipeline
    plain: DiffusionPipeline

    @property
    def noise(self):
        return draw_noise([0, 1], self.ours.latent_shape)

    @property
    def flow(self):
        return isinstance(self.ours.schedule, Flow)

    @property
    def call(self):
        """The config's sampler settings as diffusers names them, with fewer steps where there are many."""
        settings = {"num_inference_steps": min(self.ours.steps, 4), "guidance_scale": self.ours.guidance}
        if self.name == "hunyuan_dit":
            settings["use_resolution_binning"] = False
        return settings | {"height": self.ours.height, "width": self.ours.width, "output_type": "pt"}

    def sample(self, prompt, seeds=(0, 1), **options):
        generator = sampler_generators(seeds)
        return self.ours.sample(prompt, self.noise, min(self.ours.steps, 4), generator=generator, **options)

    def sample_by_diffusers(self, **options):
        latents, generator = self.ours.pack(self.noise), sampler_generators([0, 1])
        return self.plain(PROMPTS, latents=latents, generator=generator, **self.call | options).images


@pytest.fixture(scope="module")
def prepare(request, tmp_path_factory):
    """Writes the tiny build of a config to disk, and gives the folder and the config."""

    def write(name):
        kind = family(configured(name).pipeline).diffusers_class
        folder, size = tmp_path_factory.mktemp(name), SIZES.get(kind.__name__, 32)
        tiny = [f"pipeline.model.source={folder}", f"pipeline.height={size}", f"pipeline.width={size}"]
        config = configured(name, "++pipeline.model.variant=null", *tiny).pipeline
        pipe = kind.from_pretrained(request.getfixturevalue(BUILDS[kind.__name__]))
        if kind.__name__.startswith("StableDiffusion") and "3" not in kind.__name__:
            settings = dict(OWN_SCHEDULERS.get(name, {"name": "EulerDiscreteScheduler"}))
            scheduler = getattr(diffusers, settings.pop("name"))
            pipe.scheduler = scheduler.from_config(pipe.scheduler.config, **settings)
        pipe.save_pretrained(folder)
        for part, distil in {"unet": write_unet, "loras": write_lora}.items():
            for weights in given(config.model, part):
                weights.source = str(folder / "distilled")
                distil(pipe, folder / "distilled" / weights.weight_name)
        return folder, config

    return write


def given(model, part):
    """The weights that a config names for a part: one denoiser's, or several adapters'."""
    options = model.get(part) or {}
    return [options] if "source" in options else [*options.values()]


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


def by_diffusers(folder, config):
    """The pipeline of a config, set up as the models' cards do it."""
    pipe, model = family(config).diffusers_class.from_pretrained(folder), config.model
    if model.get("scheduler"):
        settings = dict(model.scheduler)
        pipe.scheduler = getattr(diffusers, settings.pop("name")).from_config(pipe.scheduler.config, **settings)
    if model.get("unet"):
        weights = Path(model.unet.source) / model.unet.weight_name
        pipe.unet.load_state_dict(diffusers.models.model_loading_utils.load_state_dict(weights))
    for lora in given(model, "loras"):
        pipe.load_lora_weights(lora.source, weight_name=lora.weight_name)
        pipe.fuse_lora()
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module", params=NAMES)
def case(request, prepare):
    folder, config = prepare(request.param)
    return Case(request.param, instantiate(config.model), by_diffusers(folder, config))


@pytest.fixture(scope="module")
def prompt(case):
    return case.ours.encode(PROMPTS)


@torch.no_grad()  # T5 takes another kernel with gradients
def encode_by_diffusers(case, **options):
    """What the pipeline's own `encode_prompt` says of PROMPTS, in the names of PromptEmbedding."""
    encode = partial(case.plain.encode_prompt, PROMPTS, device="cpu", num_images_per_prompt=1)
    if case.name == "flux":
        embeds, pooled, _ = encode(prompt_2=None)
        return {"embeds": embeds, "pooled": pooled}, {}
    options = {"do_classifier_free_guidance": True} | options
    if case.name == "hunyuan_dit":
        first, second = encode(**options), encode(text_encoder_index=1, **options)
        return (
            dict(zip(case.ours.conditions, (first[i], first[i + 2], second[i], second[i + 2]), strict=True))
            for i in (0, 1)
        )
    if case.name == "sd35":
        options |= {"prompt_2": None, "prompt_3": None}
    found = encode(**options)
    return (dict(zip(case.ours.conditions, found[i::2], strict=True)) for i in (0, 1))


@pytest.mark.parametrize("options", [{}, {"negative_prompt": [NEGATIVE] * 2}], ids=["empty", "negative"])
def test_encoding_is_the_pipelines_own(case, options, monkeypatch):
    if options and case.name == "flux":
        return  # it takes none: test_flux.py
    monkeypatch.setattr(case.ours, "negative_prompt", NEGATIVE if options else "")
    prompt = case.ours.encode(PROMPTS)
    for found, expected in zip((prompt, prompt.negative), encode_by_diffusers(case, **options), strict=True):
        tensors = {} if found is None else found.tensors
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[name], part) for name, part in expected.items())
    assert prompt.texts == tuple(PROMPTS)


def test_an_image_is_the_diffusers_call_bit_for_bit(case, prompt):
    images = case.sample(prompt)
    assert torch.equal(images, case.sample_by_diffusers())
    assert images.shape == (2, 3, case.ours.height, case.ours.width)
    assert images.std() > 0.01


def test_so_is_one_with_a_negative_prompt_and_rescaled_guidance(case, monkeypatch):
    if case.name == "flux":
        return  # it takes neither: test_flux.py
    rescale = {} if case.flow else {"guidance_rescale": 0.7}
    for name, value in ({"negative_prompt": NEGATIVE} | rescale).items():
        monkeypatch.setattr(case.ours, name, value)
    options = {"negative_prompt": [NEGATIVE] * 2, "guidance_scale": 3.0} | rescale
    images = case.sample(case.ours.encode(PROMPTS), guidance=3.0)
    assert torch.equal(images, case.sample_by_diffusers(**options))


def test_the_same_generators_give_the_same_image(case, prompt):
    images = case.sample(prompt)
    assert torch.equal(case.sample(prompt), images)
    stochastic = case.name in ("lcm", "sdxl_turbo", "hunyuan_dit")
    if stochastic and case.ours.steps > 1:  # one step of Euler's ancestral sampler ends without noise
        assert not torch.equal(case.sample(prompt, seeds=[2, 1]), images)


def called(denoiser, run):
    """What a denoiser is given, and gives, at its first call."""
    seen = []
    hook = denoiser.register_forward_hook(lambda _, args, given, out: seen.append((args, given, out)), with_kwargs=True)
    try:
        with torch.inference_mode():
            run()
    finally:
        hook.remove()
    return seen[0]


def flat_tensors(node):
    """Tensors in nested arguments by their names; places count as names."""
    if isinstance(node, torch.Tensor):
        return {"": node.float()}
    named = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, (tuple, list)) else ()
    return {f"{name}.{key}": x for name, value in named for key, x in flat_tensors(value).items()}


def test_at_any_size_the_denoiser_is_told_what_diffusers_tells_it(case, prompt):
    """Of an image that is wider than high: sizes must not be swapped."""
    height, width = case.ours.height, case.ours.width * 3 // 2
    wide = type(case.ours)(case.ours.pipe, height, width, steps=2, guidance=1.0)
    noise = draw_noise([0, 1], wide.latent_shape)
    guidance = case.ours.guidance if case.name == "flux" else 1.0
    by_diffusers = called(
        case.ours.denoiser, lambda: wide.sample(prompt, noise, guidance=guidance, generator=sampler_generators([0, 1]))
    )
    scheduler = case.ours.pipe.scheduler
    timestep = scheduler.timesteps[0]
    latents = noise
    if not case.flow:
        scheduler.set_timesteps(2)
        latents = scheduler.scale_model_input(noise * scheduler.init_noise_sigma, timestep)
    options = {"guidance": guidance} if case.name == "flux" else {}
    ours = called(case.ours.denoiser, lambda: wide.denoise(latents, timestep.item(), prompt, **options))
    torch.testing.assert_close(ours[2][0], by_diffusers[2][0], atol=1e-5, rtol=1e-5)
    told, expected = (flat_tensors(call[1]) for call in (ours, by_diffusers))
    for name in told.keys() & expected.keys():
        torch.testing.assert_close(told[name].expand_as(expected[name]), expected[name], atol=1e-5, rtol=1e-5)


def follow_the_path(case, monkeypatch):
    """Give diffusers' pipeline the sampler that searches and gradients follow."""
    if not case.flow:
        own, spacing = case.plain.scheduler.config, case.ours.schedule._scheduler.config.timestep_spacing
        ddim = DDIMScheduler.from_config(own, clip_sample=False, set_alpha_to_one=False, timestep_spacing=spacing)
        monkeypatch.setattr(case.plain, "scheduler", ddim)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_predictions_lead_where_the_deterministic_sampler_leads(case, prompt, guidance, monkeypatch):
    """All of `encode`, `predict` and the schedule, against a sampler of diffusers."""
    path, latents = SamplerPath.of(case.ours, prompt, 5), case.noise
    for step in range(5):
        latents = path.down(latents, step, guidance)
    follow_the_path(case, monkeypatch)
    settings = {"num_inference_steps": 5, "guidance_scale": guidance, "output_type": "latent"}
    torch.testing.assert_close(case.ours.pack(latents), case.sample_by_diffusers(**settings), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_generated_images_are_those_of_the_deterministic_sampler(case, prompt, guidance, monkeypatch):
    images = case.ours.generate(case.noise, prompt, steps=3, guidance=guidance)
    follow_the_path(case, monkeypatch)
    expected = case.sample_by_diffusers(num_inference_steps=3, guidance_scale=guidance)
    torch.testing.assert_close(images, expected, atol=2e-3, rtol=0)


def test_a_preview_is_what_the_image_is_predicted_to_be(case, prompt):
    """After one step: the clean latents of the first prediction."""
    clean = case.ours.clean(case.noise, prompt, steps=3, guidance=2.0, preview_steps=1)
    first = case.ours.schedule.timesteps(3)[0].item()
    prediction = case.ours.predict(case.noise, first, prompt, 2.0)
    assert torch.equal(clean, case.ours.schedule.move(case.noise, prediction, first, 0))
    whole = [case.ours.clean(case.noise, prompt, steps=3, preview_steps=taken) for taken in (3, None)]
    assert torch.equal(*whole) and not torch.equal(whole[0], clean)


def gradient(case, prompt, weights, **options):
    """Of a weighted sum of the pixels, by the noise."""
    noise = case.noise.requires_grad_()
    (case.ours.generate(noise, prompt, steps=3, guidance=1.0, **options) * weights).sum().backward()
    return noise.grad


def test_gradients_reach_every_noise_and_nothing_else(case, prompt):
    weights = torch.randn(2, 3, case.ours.height, case.ours.width, generator=torch.Generator().manual_seed(0))
    whole = gradient(case, prompt, weights)
    assert whole.isfinite().all() and (whole.flatten(1).norm(dim=1) > 0).all()
    assert torch.allclose(gradient(case, prompt, weights, checkpointing=True), whole, atol=1e-6, rtol=1e-4)
    parts = [part for part in case.ours.pipe.components.values() if isinstance(part, torch.nn.Module)]
    assert all(p.grad is None for part in parts for p in part.parameters())
    # One noise's image does not depend on the other's.
    weights[1] = 0
    assert not gradient(case, prompt, weights)[1].any()


def linear_gain(pipeline, steps):
    """How much a change of the starting noise changes the clean latents where no Jacobian is kept: A = prod a_t."""
    levels = [*pipeline.schedule.timesteps(steps).tolist(), 0]
    one, none = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    for start, end in pairwise(levels):
        one = pipeline.schedule.move(one, none, start, end)
    return one.item()


def test_without_jacobians_the_gradient_is_the_linear_paths(case, prompt):
    """A dr/dx0 for a reward r of the clean latents x0 (NoiseRefine, arXiv 2412.03895)."""
    noise = case.noise.requires_grad_()
    clean = case.ours.clean(noise, prompt, steps=3, guidance=3.0, jacobian_steps=0)
    weights = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    (clean * weights).sum().backward()
    torch.testing.assert_close(noise.grad, linear_gain(case.ours, 3) * weights, atol=1e-5, rtol=1e-4)


def test_jacobians_are_kept_from_the_end(case, prompt):
    """Each further one changes the gradient, the images never. With all of them it is the derivative."""
    noise = case.noise
    images = [case.ours.clean(noise, prompt, 3, 1.0, jacobian_steps=kept) for kept in range(4)]
    assert all(torch.equal(each, images[0]) for each in images)
    gradients = [gradient(case, prompt, 1.0, jacobian_steps=kept) for kept in range(4)]
    assert all((a - b).abs().max() > 1e-7 for a, b in pairwise(gradients))
    assert torch.equal(gradients[3], gradient(case, prompt, 1.0))
    direction = gradients[3] / gradients[3].norm()
    with torch.no_grad():
        ends = [case.ours.generate(noise + step * direction, prompt, 3, 1.0).double().sum() for step in (-0.02, 0.02)]
    assert (ends[1] - ends[0]) / 0.04 == pytest.approx(gradients[3].norm().item(), rel=0.05)
    with pytest.raises(UserError, match="jacobian_steps=4 must be between 0 and the number of steps, 3"):
        case.ours.clean(noise, prompt, 3, 1.0, jacobian_steps=4)


@pytest.mark.parametrize("steps", [2, 10, 50])
def test_inversion_undoes_a_step(case, prompt, steps):
    schedule, noise = case.ours.schedule, case.noise
    timesteps = schedule.timesteps(steps)
    start, following = timesteps[:2].tolist()
    with torch.inference_mode():
        output = case.ours.denoise(noise, start, prompt)
    below = schedule._scheduler.step(output, timesteps[0], noise).prev_sample
    prediction = case.ours.predict(noise, start, prompt, 1 if case.name != "flux" else case.ours.guidance)
    torch.testing.assert_close(schedule.move(noise, prediction, start, following), below, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(schedule.move(below, prediction, following, start), noise, atol=1e-5, rtol=0)


SEARCHES = [Redenoise(4), FullInversion(3), Zigzag(3), Rescale(0.9)]


@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: type(search).__name__)
def test_every_search_moves_the_noise_and_keeps_its_shape(case, prompt, search):
    golden = search.search(case.noise, prompt, case.ours)
    assert golden.shape == case.noise.shape and golden.isfinite().all()
    assert (golden - case.noise).abs().max() > 1e-4


FAST = ("sd15", "sdxl", "hunyuan_dit", "sd35")  # one of every family
SHAPES = {  # of the tiny builds: noise, prompt embedding, pooled embedding
    "tiny_sd": ([4, 8, 8], [16, 64], None),
    "tiny_sdxl": ([4, 8, 8], [16, 128], [64]),
    "tiny_hunyuan": ([4, 8, 8], [77, 32], None),
    "tiny_sd3": ([16, 8, 8], [272, 32], [32]),
    "tiny_flux": ([16, 8, 8], [512, 32], [16]),
}
TINY_BACKBONE = {"img_size": 8, "patch_size": 1, "in_chans": 16, "embed_dim": 16, "depth": 1, "num_heads": 2}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in NAMES if name not in BUNDLED],
)
def test_collect_train_generate_and_evaluate(name, prepare, tmp_path):
    _, pipeline = prepare(name)
    shapes = SHAPES[BUILDS[family(pipeline).diffusers_class.__name__]]
    OmegaConf.set_struct(pipeline, False)
    pipeline.latent_shape, pipeline.embeds_shape, pipeline.pooled_shape = shapes
    pipeline.steps = min(pipeline.steps, 2)
    recipe = {"backbone": "vit_tiny_patch16_224", "backbone_size": None, "backbone_args": TINY_BACKBONE}
    reward = "package:shapes/weights/reward"

    def job(which, *overrides):
        (tmp_path / "prompts.txt").write_text("\n".join(f"{n} red circles" for n in range(8)))
        judged = ["metric=pickscore", f"metric.pickscore.model={reward}", f"metric.pickscore.processor={reward}"]
        places = [f"folder={tmp_path}/{which}", "name=test"] if which != "collect" else []
        places += [f"data_dir={tmp_path}/pairs"] if which in ("collect", "train") else []
        options = ["device=cpu", f"pipeline={name}", f"paths.outputs={tmp_path}", *places]
        if which != "generate":
            options += ["prompts=file", f"prompts.path={tmp_path}/prompts.txt", *judged]
        config = job_config(which, [*options, *overrides])
        config.pipeline = pipeline
        if which == "train":
            OmegaConf.update(config, "recipe", recipe | {"batch_size": 4, "epochs": 2}, force_add=True)
        check(config)
        return config

    collect(job("collect", "collection.margin=-1000"))  # every pair is kept
    train(job("train", "data.val_fraction=0.4", "logger=csv", "sample_every_n_epochs=0"))
    npnet = f"npnet={tmp_path}/train/npnet/best"
    generate(job("generate", "prompt=a red circle", npnet))
    assert list((tmp_path / "generate").rglob("*.png"))
    results = evaluate(job("evaluate", npnet, "logger=csv", "evaluation.batch_size=8"))
    assert {"standard", "search", "npnet", "shuffled"} <= results["methods"].keys()


@pytest.mark.parametrize("name", ["sdxl_lightning", "lcm", "pcm", "shapes_turbo"])
def test_distilled_weights_change_the_model(name, prepare):
    _, config = prepare(name)
    distilled = instantiate(config.model)
    OmegaConf.set_struct(config, False)  # the miniature's has no `unet`
    config.model.unet, config.model.loras = None, {}
    base = instantiate(config.model)
    prompt, noise = base.encode(PROMPTS), draw_noise([0, 1], base.latent_shape)
    gap = distilled.predict(noise, 801, prompt, 1) - base.predict(noise, 801, prompt, 1)
    assert gap.std() > 1e-3
    assert distilled.denoiser.state_dict().keys() == base.denoiser.state_dict().keys()  # adapters are merged


@pytest.mark.parametrize("name", [name for name in NAMES if name not in BUNDLED])
def test_shapes_in_the_config_fit_the_published_model(name):
    config = configured(name)
    check(config)
    config = config.pipeline
    with torch.device("meta"), torch.no_grad():
        denoiser = DENOISER_CLASSES.get(name, diffusers.UNet2DConditionModel)(**DENOISERS.get(name, SDXL))
        latents, embeds = torch.zeros(2, *config.latent_shape), torch.zeros(2, *config.embeds_shape)
        pooled = None if config.pooled_shape is None else torch.zeros(2, *config.pooled_shape)
        output = run_denoiser(name, denoiser, latents, embeds, pooled)
    assert output.shape == latents.shape
    size = denoiser.config.get("sample_size", 128)  # Flux is drawn at 1024 pixels, but has no such number
    assert tuple(config.latent_shape[1:]) == (size, size)
    assert config.embeds_shape[0] == {"sd35": 77 + 256, "flux": 512}.get(name, 77)  # CLIP's and T5's
    if hasattr(denoiser, "conv_in"):
        assert config.conv_in == denoiser.conv_in.out_channels


DENOISER_CLASSES = {
    "hunyuan_dit": diffusers.HunyuanDiT2DModel,
    "sd35": diffusers.SD3Transformer2DModel,
    "flux": diffusers.FluxTransformer2DModel,
}


def run_denoiser(name, denoiser, latents, embeds, pooled):
    """One call of a published denoiser without weights."""
    timestep = torch.ones(2)
    if name == "hunyuan_dit":
        masks = {"text_embedding_mask": torch.ones(2, 77), "text_embedding_mask_t5": torch.ones(2, 256)}
        t5 = torch.zeros(2, 256, 2048)
        return denoiser(latents, timestep, embeds, encoder_hidden_states_t5=t5, **masks).sample[:, :4]
    if name == "sd35":
        return denoiser(latents, embeds, pooled, timestep).sample
    if name == "flux":
        ids = {"img_ids": torch.zeros(64 * 64, 3), "txt_ids": torch.zeros(512, 3)}
        tokens = diffusers.FluxPipeline._pack_latents(latents, *latents.shape)
        found = denoiser(tokens, embeds, pooled, timestep, guidance=torch.ones(2), **ids).sample
        return diffusers.FluxPipeline._unpack_latents(found, 1024, 1024, 8)
    added = None if pooled is None else {"text_embeds": pooled, "time_ids": torch.zeros(2, 6)}
    return denoiser(latents, 1, embeds, added_cond_kwargs=added).sample


@pytest.mark.parametrize("name", NAMES)
def test_settings_reach_the_pipeline(name):
    changes = ["pipeline.guidance=1.5", "pipeline.steps=3", "pipeline.negative_prompt=dull"]
    config = configured(name, *changes).pipeline
    assert config.name == name
    assert {"height", "width", "steps", "guidance", "guidance_rescale"} <= config.model.keys()
    assert (config.model.guidance, config.model.steps, config.model.negative_prompt) == (1.5, 3, "dull")
    if name not in BUNDLED:
        assert config.model.revision == "main"
        for part in ("unet", "loras"):
            for options in given(config.model, part):
                assert options.keys() == {"source", "weight_name", "revision"}
