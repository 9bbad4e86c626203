"""Every preset composes, really changes the config, and runs a smoke step on a tiny build."""

import csv

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from golden_noise.cli.conf import CONF, choices
from golden_noise.cli.config import job_config
from golden_noise.cli.validation import check
from golden_noise.collecting.job import collect
from golden_noise.training.job import train

EXPERIMENTS = choices("experiment")
DEBUGS = choices("debug")
PRESETS = [*(f"experiment={name}" for name in EXPERIMENTS), *(f"debug={name}" for name in DEBUGS)]
ABSENT = object()
SEARCHES = {"redenoise": "Redenoise", "full_inversion": "FullInversion", "zigzag": "Zigzag", "rescale": "Rescale"}


def flat(node, prefix=""):
    """Dotted keys and plain values of a nested config."""
    if not isinstance(node, dict):
        return {prefix: node}
    return {key: value for name in node for key, value in flat(node[name], f"{prefix}.{name}".lstrip(".")).items()}


def composed(job, *overrides):
    return job_config(job, [*overrides])


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_says_nothing_in_vain(preset):
    """Each of its settings reaches the config, and none is the default already."""
    default, changed = (flat(OmegaConf.to_container(composed("train", *choice))) for choice in ([], [preset]))
    assert default != changed
    stated = OmegaConf.to_container(OmegaConf.load(CONF / f"{preset.replace('=', '/')}.yaml"))
    stated.pop("defaults", None)
    for key, value in flat(stated).items():
        assert changed[key] == value, key
        assert default.get(key, ABSENT) != value, key


def test_hunyuan_dit_is_trained_with_the_published_variant():
    preset, variant = (
        composed("train", f"experiment=published_{name}", *model)
        for name, model in {"hunyuan_dit": [], "sdxl": ["pipeline=hunyuan_dit", "model=svd_unet+unet+dit"]}.items()
    )
    assert preset.model == variant.model
    npnet = instantiate(preset.model.npnet, pretrained=False)
    assert (npnet.latent_shape, npnet.embeds_shape) == ((4, 128, 128), (77, 1024))
    assert npnet.text_injection.linear.weight.shape == (8, 77 * 1024)  # as in the published weights


def test_the_command_line_beats_a_preset():
    options = ["pipeline=sdxl", "search.steps=7", "model=vit", "logger=wandb", "trainer.max_epochs=9"]
    config = composed("train", "experiment=published_dreamshaper", "debug=limited", *options)
    assert config.pipeline.name == "sdxl"
    assert config.search.steps == 7
    assert config.model.npnet.svd is False
    assert list(config.logger) == ["wandb"]
    assert config.trainer.max_epochs == 9


def test_presets_add_up():
    config = composed("train", "experiment=[published_sdxl,ablation_text]", "debug=limited")
    assert (config.model.npnet.layout, config.model.npnet.text, config.trainer.max_epochs) == ("rows", False, 2)


def tiny(build, folder):
    """A pipeline's settings for a tiny build of it."""
    pixels, embeds, pooled = {"tiny_sdxl": (32, [16, 128], [64]), "tiny_hunyuan": (64, [77, 32], None)}[build]
    return [
        f"pipeline.model.source={folder}",
        f"pipeline.height={pixels}",
        f"pipeline.width={pixels}",
        "pipeline.latent_shape=[4,8,8]",
        f"pipeline.embeds_shape={embeds}",
        f"pipeline.pooled_shape={'null' if pooled is None else pooled}",
        "pipeline.steps=4",
        "device=cpu",
    ]


TINY_NPNET = [
    "recipe=shapes",
    "recipe.backbone_args.embed_dim=16",
    "recipe.backbone_args.depth=1",
    "recipe.batch_size=8",
    "data.val_fraction=0.4",
    "callbacks.progress.refresh_rate=0",
]
LARGE = {
    "published_sdxl": "tiny_sdxl",
    "published_dreamshaper": "tiny_sdxl",
    "published_hunyuan_dit": "tiny_hunyuan",
}
EVALUATIONS = ("published_few_step", "published_pcm")  # run in tests/metrics/test_few_step.py


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name not in EVALUATIONS])
def test_an_experiment_runs_on_a_tiny_build(name, request, tmp_path):
    build = LARGE.get(name, "tiny_sdxl")
    settings = tiny(build, request.getfixturevalue(build))
    (tmp_path / "prompts.txt").write_text("\n".join(f"{n} red circles" for n in range(40)))
    places = [f"data_dir={tmp_path}/pairs", f"paths.outputs={tmp_path}"]
    prompts = [f"prompts.path={tmp_path}/prompts.txt"] if name in LARGE else ["prompts.count=40"]
    common = [f"experiment={name}", *settings, *places, *prompts]
    if name in LARGE:
        common += ["pipeline.model.variant=null"]
        pairs = composed("collect", *common, "collection.select_by=null")  # their metrics are too large for a test
        check(pairs)
        collect(pairs)
        common += ["model.npnet.pretrained=false"]
    if name.startswith("ablation"):  # of any other preset's settings, here those of the random pipeline's pairs
        common += ["collection.select_by=null"]
    run = [f"folder={tmp_path}/run", "name=test", "debug=limited"]
    config = composed("train", *common, *TINY_NPNET, *run)
    check(config)
    train(config)
    assert (tmp_path / "run/npnet/best/config.json").is_file()


@pytest.mark.parametrize("name", DEBUGS)
def test_a_debug_preset_runs(name, tiny_sdxl, tmp_path):
    places = [f"pipeline.model.source={tiny_sdxl}", f"data_dir={tmp_path}/pairs", f"folder={tmp_path}/run", "name=test"]
    places += ["collection.select_by=null", "prompts.count=60", "device=cpu"]
    short = ["trainer.max_epochs=40", "trainer.check_val_every_n_epoch=20"] if name == "overfit" else []
    config = composed("train", f"debug={name}", *TINY_NPNET, *places, *short)
    check(config)
    train(config)
    run = tmp_path / "run"
    assert (run / "npnet/best").is_dir() == (name != "one_batch")
    if name == "overfit":
        (log,) = run.rglob("metrics.csv")
        losses = [float(row["train/loss"]) for row in rows(log) if row["train/loss"]]
        assert losses[-1] < 0.9 * losses[0]
    if name == "profile":
        assert "run_training_batch" in (run / "fit-profile.txt").read_text()


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_an_ablation_leaves_its_part_out():
    parts = {"attention": "svd_branch.attention", "text": "text_injection", "residual": "residual_branch"}
    for name, part in parts.items():
        whole, ablated = (
            {key for key, _ in instantiate(composed("train", "recipe=shapes", *choice).model.npnet).named_parameters()}
            for choice in (["model=svd_unet+unet"], [f"experiment=ablation_{name}"])
        )
        assert any(key.startswith(part) for key in whole)
        assert not any(key.startswith(part) for key in ablated)


def test_without_text_the_prompt_does_not_matter():
    npnet = instantiate(composed("train", "experiment=ablation_text", "recipe=shapes").model.npnet)
    with torch.no_grad():
        for parameter in npnet.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    noise = torch.randn(2, 4, 8, 8)
    one, two = (npnet(noise, torch.randn(2, 16, 128)) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, noise)


@pytest.mark.parametrize(
    ("choice", "search", "model", "epochs"),
    [
        ([], "redenoise", "svd_unet+unet", 30),
        (["pipeline=sdxl"], "redenoise", "svd_unet+unet", 30),
        (["experiment=shapes"], "full_inversion", "denoiser_lora", 5),
        (["experiment=shapes", "search=rescale"], "rescale", "denoiser_lora", 5),
        (["experiment=shapes", "pipeline=sdxl", "recipe=published"], "full_inversion", "denoiser_lora", 30),
        (["experiment=published_sdxl", "pipeline=shapes"], "redenoise", "svd_unet+unet", 30),
        (["experiment=shapes_paper"], "redenoise", "svd_unet+unet", 5),
        (["experiment=shapes_paper", "search=zigzag"], "zigzag", "svd_unet+unet", 5),
        (["experiment=shapes_selected"], "full_inversion", "denoiser_lora", 5),
        (["experiment=[shapes,ablation_text]"], "full_inversion", "svd_unet+unet", 5),
    ],
)
def test_a_pipeline_chooses_nothing_else_and_presets_do_for_every_job(choice, search, model, epochs):
    for job in ("train", "collect", "evaluate", "generate"):
        given = choice if job == "train" else [option for option in choice if not option.startswith("recipe=")]
        assert composed(job, *given).search._target_ == f"golden_noise.search.{search}.{SEARCHES[search]}"
    config = composed("train", *choice)
    assert config.model.npnet._target_.endswith("DenoiserNPNet" if model == "denoiser_lora" else "npnet.NPNet")
    assert config.trainer.max_epochs == epochs
