"""What a pipeline's config says about training and batches, and that no setting of it is passed over in silence."""

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict

from golden_noise.cli.conf import CONF
from golden_noise.cli.validation import check
from golden_noise.errors import UserError


def composed(job, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(job, list(overrides))


@pytest.fixture
def check_command(monkeypatch, tmp_path):
    """Checks what `python train.py ARGUMENTS` composes, as its process would."""

    def checked(*arguments):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("train", [f"folder={tmp_path}", *arguments], return_hydra_config=True)
        monkeypatch.setattr(HydraConfig.instance(), "cfg", config.copy())
        with open_dict(config):
            config.pop("hydra")
        check(config)

    yield checked
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("arguments", "option", "read"),
    [
        (["pipeline.recipe.lr=1e-6"], "pipeline.recipe.lr", "pipeline.recipe.denoiser_lr"),
        (["model=unet", "pipeline.recipe.backbone=x"], "pipeline.recipe.backbone", "pipeline.recipe.conv_in"),
        (["model=vit", "+pipeline.recipe.backbone_args.x=1", "pipeline.recipe.lora_rank=4"], "lora_rank", "recipe.lr"),
        (["pipeline=sdxl", "model=vit", "evaluate=false", "pipeline.recipe.denoiser_lr=1"], "denoiser_lr", "backbone"),
        (["trainer.max_epochs=2", "pipeline.recipe.epochs=3"], "pipeline.recipe.epochs", "batch_size"),
        (["model=vit", "model.optimizer.lr=1", "pipeline.recipe.lr=2"], "pipeline.recipe.lr", "backbone"),
    ],
)
def test_a_recipes_setting_that_nothing_reads_is_refused(check_command, arguments, option, read):
    with pytest.raises(UserError, match="has no effect") as raised:
        check_command(*arguments)
    first, _, rest = str(raised.value).partition(" has no effect: ")
    assert first.endswith(option) and f"{read}" in rest
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["pipeline.recipe.denoiser_lr=1e-6", "pipeline.recipe.lora_rank=2"],
        ["model=vit", "pipeline.recipe.lr=1e-6", "pipeline.recipe.backbone_args.depth=1"],
        ["model=unet", "pipeline.recipe.conv_in=8", "pipeline.recipe.epochs=1", "pipeline.recipe.batch_size=2"],
        ["experiment=shapes_paper", "pipeline.recipe.lr=1e-6"],
        ["pipeline=sdxl", "model=vit", "+pipeline.recipe.lr=1e-6"],
    ],
)
def test_one_that_is_read_passes(check_command, arguments):
    check_command(*arguments)


def test_sdxl_is_not_evaluated_on_the_miniatures_captions_after_training():
    places = ["pipeline=sdxl", "data_dir=pairs", "folder=run", "name=x", "evaluate=true"]
    with pytest.raises(UserError, match=r"evaluate=true with pipeline=sdxl needs held-out prompts of its own"):
        check(composed("train", *places))
    chosen = ["prompts@evaluation.prompts=file", "evaluation.prompts.path=held_out.txt"]
    config = composed("train", *places, *chosen)
    check(config)
    assert "split" not in config.evaluation.prompts  # nothing is left of the miniature's


def test_batches_are_the_pipelines():
    sizes = {"shapes": (64, 100, 8), "sdxl": (4, 4, 4), "dreamshaper": (4, 4, 4), "sd15": (16, 16, 8)}
    for name, (collect, evaluate, generate) in sizes.items():
        assert composed("collect", f"pipeline={name}").collection.batch_size == collect
        assert composed("evaluate", f"pipeline={name}").evaluation.batch_size == evaluate
        assert composed("train", f"pipeline={name}").evaluation.batch_size == evaluate
        assert composed("generate", f"pipeline={name}").batch_size == generate
    assert composed("evaluate", "pipeline.batch_size.evaluate=7").evaluation.batch_size == 7
    assert composed("evaluate", "~pipeline.batch_size").evaluation.batch_size == 4
