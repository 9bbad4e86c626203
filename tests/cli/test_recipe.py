"""The recipe of a training, and that no setting of it is passed over in silence."""

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict

from golden_noise.cli.conf import CONF, choices
from golden_noise.cli.config import complete, job_config
from golden_noise.cli.validation import check
from golden_noise.errors import UserError


@pytest.fixture
def check_command(monkeypatch, tmp_path):
    """Checks what `python train.py ARGUMENTS` composes, as its process would."""

    def checked(*arguments):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("train", [f"folder={tmp_path}", *arguments], return_hydra_config=True)
        monkeypatch.setattr(HydraConfig.instance(), "cfg", config.copy())
        with open_dict(config):
            config.pop("hydra")
        check(complete(config, arguments))

    yield checked
    monkeypatch.undo()


def test_recipes_say_the_same_things():
    published, *others = (OmegaConf.load(CONF / f"recipe/{name}.yaml") for name in choices("recipe"))
    assert others and all(recipe.keys() == published.keys() for recipe in others)


def test_every_pipeline_is_trained_by_the_papers_recipe_unless_told_otherwise():
    for name in choices("pipeline"):
        config = job_config("train", [f"pipeline={name}"])
        assert (config.trainer.max_epochs, config.data.batch_size, config.model.optimizer.lr) == (30, 64, 1e-4)
    config = job_config("train", ["experiment=shapes"])
    assert (config.trainer.max_epochs, config.data.batch_size, config.model.optimizer.lr) == (5, 32, 1e-3)


@pytest.mark.parametrize(
    ("arguments", "option", "read"),
    [
        (["experiment=shapes", "recipe.lr=1e-6"], "recipe.lr", "recipe.denoiser_lr"),
        (["model=unet", "recipe.backbone=x"], "recipe.backbone", "recipe.batch_size"),
        (["model=vit", "+recipe.backbone_args.x=1", "recipe.lora_rank=4"], "lora_rank", "recipe.vit_lr"),
        (["pipeline=sdxl", "model=vit", "evaluate=false", "recipe.denoiser_lr=1"], "denoiser_lr", "backbone"),
        (["model=vit", "recipe.lr=2"], "recipe.lr", "recipe.vit_lr"),
    ],
)
def test_a_recipes_setting_that_nothing_reads_is_refused(check_command, arguments, option, read):
    with pytest.raises(UserError, match="has no effect") as raised:
        check_command(*arguments)
    first, _, rest = str(raised.value).partition(" has no effect: ")
    assert first.endswith(option) and f"{read}" in rest
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("recipe.epochs=3", "trainer.max_epochs=2"),
        ("++recipe.lr=2", "model.optimizer.lr=1"),
        ("recipe.batch_size=4", "++data.batch_size=8"),
    ],
)
def test_of_two_settings_for_the_same_one_has_no_effect(check_command, one, other):
    for arguments in ([one, other], [other, "model=unet", one]):
        with pytest.raises(UserError) as raised:
            check_command(*arguments)
        assert str(raised.value) == f"{one.partition('=')[0]} has no effect beside {other}: leave one of them out"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["experiment=shapes", "recipe.denoiser_lr=1e-6", "recipe.lora_rank=2"],
        ["model=vit", "recipe.vit_lr=1e-6", "+recipe.backbone_args.depth=1"],
        ["model=unet", "recipe.epochs=1", "recipe.batch_size=2"],
        ["experiment=shapes_paper", "recipe.lr=1e-6"],
    ],
)
def test_one_that_is_read_passes(check_command, arguments):
    check_command(*arguments)


def test_sdxl_is_not_evaluated_on_the_miniatures_captions_after_training():
    places = ["pipeline=sdxl", "data_dir=pairs", "folder=run", "name=x", "evaluate=true"]
    with pytest.raises(UserError, match=r"evaluate=true with pipeline=sdxl needs held-out prompts of its own"):
        check(job_config("train", places))
    chosen = ["prompts@evaluation.prompts=file", "evaluation.prompts.path=held_out.txt"]
    config = job_config("train", [*places, *chosen])
    check(config)
    assert "split" not in config.evaluation.prompts  # nothing is left of the miniature's


def test_batches_are_the_pipelines():
    sizes = {"shapes": (64, 100, 8), "sdxl": (4, 4, 4), "dreamshaper": (4, 4, 4), "sd15": (16, 16, 8)}
    for name, (collect, evaluate, generate) in sizes.items():
        assert job_config("collect", [f"pipeline={name}"]).collection.batch_size == collect
        assert job_config("evaluate", [f"pipeline={name}"]).evaluation.batch_size == evaluate
        assert job_config("train", [f"pipeline={name}"]).evaluation.batch_size == evaluate
        assert job_config("generate", [f"pipeline={name}"]).batch_size == generate
    assert job_config("evaluate", ["pipeline.batch_size.evaluate=7"]).evaluation.batch_size == 7
    assert job_config("evaluate", ["~pipeline.batch_size"]).evaluation.batch_size == 4
