"""Training that starts from a trained network."""

import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from golden_noise.errors import UserError
from golden_noise.npnet import DenoiserNPNet, NPNet, checkpoint
from golden_noise.pipelines.lazy import LazyPipeline
from golden_noise.training.job import build_npnet, train

SMALL = [
    "prompts.count=60",
    "collection.shard_size=60",
    "recipe.batch_size=16",
    "recipe.backbone_args.embed_dim=16",
    "recipe.backbone_args.depth=1",
    "data.val_fraction=0.3",
    "callbacks.progress.refresh_rate=0",
]
LOW = ["model=low_frequency"]


def disturbed(npnet):
    """As after a training."""
    with torch.no_grad():
        for parameter in npnet.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return npnet


def build(config):
    return build_npnet(config, LazyPipeline(config.pipeline.model))


def same(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


@pytest.fixture
def trained(compose_job, tmp_path):
    """Saves a network of the config as a run does, and gives it."""

    def make(*overrides):
        npnet = disturbed(build(compose_job("train", *SMALL, *overrides)))
        npnet.save_pretrained(tmp_path / "first/npnet/best")
        return npnet

    return make


@pytest.fixture
def command_line():
    """Sets the overrides that Hydra says the user gave."""

    def give(*overrides):
        hydra = {"hydra": {"overrides": {"task": list(overrides)}, "mode": "RUN"}}
        HydraConfig.instance().cfg = OmegaConf.create(hydra)
        return overrides

    yield give
    HydraConfig.instance().cfg = None


def test_it_learns_on_and_resumes_from_its_own_checkpoint(compose_job, trained, tmp_path):
    """With a learning rate of 0 the result is the start."""
    first = trained()
    options = [*SMALL, f"npnet={tmp_path}/first", "recipe.lr=0"]
    train(compose_job("train", *options, "recipe.epochs=1"))
    assert same(NPNet.from_pretrained(tmp_path / "run/npnet/last"), first)
    assert "| trained on from | first |" in (tmp_path / "run/npnet/best/README.md").read_text()
    train(compose_job("train", *options, "recipe.epochs=2"))
    assert (tmp_path / "run/csv/version_1/metrics.csv").is_file()
    assert same(NPNet.from_pretrained(tmp_path / "run/npnet/last"), first)
    with pytest.raises(UserError, match=rf"resumes from: give the folder of its run, {tmp_path}/run$"):
        checkpoint.load(str(tmp_path / "run/checkpoints/last.ckpt"))
    assert not same(trained(), first)
    with pytest.raises(UserError, match=r"run was made with other files in .*/first/npnet/best"):
        train(compose_job("train", *options, "recipe.epochs=3"))


@pytest.mark.parametrize(
    "model", ["svd_unet+unet", "svd_unet", "vit", "e_unet", "unet", "denoiser_lora", "low_frequency"]
)
def test_every_variant_is_in_training_mode_throughout(compose_job, trained, tmp_path, model):
    options = [f"model={model}", *(["model.npnet.pretrained=false"] if model == "unet" else [])]
    first = trained(*options)
    npnet = build(compose_job("train", *SMALL, *options, f"npnet={tmp_path}/first"))
    assert type(npnet) is type(first) and same(npnet, first)
    assert all(module.training for module in npnet.modules())
    assert all(parameter.requires_grad for parameter in npnet.parameters())


def test_its_own_options_count(compose_job, trained, tmp_path):
    trained("model.npnet.attention=false", "model.npnet.unit_variance=true")
    npnet = build(compose_job("train", f"npnet={tmp_path}/first"))
    assert (npnet.config["attention"], npnet.config["unit_variance"]) == (False, True)


def test_low_frequencies_of_another_size_are_a_start(compose_job, trained, tmp_path):
    first = trained(*LOW)
    larger = build(compose_job("train", *LOW, f"npnet={tmp_path}/first", "pipeline.latent_shape=[4,16,12]"))
    assert same(larger, first)
    with pytest.raises(UserError, match=r"latent_shape \(4, 8, 8\).* needs \(4, 3, 8\)"):
        build(compose_job("train", *LOW, f"npnet={tmp_path}/first", "pipeline.latent_shape=[4,3,8]"))


@pytest.mark.parametrize("model", ["svd_unet", "low_frequency", "denoiser_lora"])
def test_one_file_is_a_start_too(compose_job, trained, tmp_path, model):
    first = trained(f"model={model}")
    checkpoint.save(first, str(tmp_path / "first.safetensors"))
    start = build(compose_job("train", *SMALL, f"model={model}", f"npnet={tmp_path}/first.safetensors"))
    assert start.training and same(start, first)


def test_published_weights_are_a_start_too(compose_job, tmp_path):
    npnet = disturbed(
        NPNet(
            *((4, 16, 16), (77, 8)),
            signs="raw",
            backbone="swin_tiny_patch4_window7_224",
            backbone_args={},
            backbone_size=224,
            layout="rows",
        )
    )
    checkpoint.save(npnet, str(tmp_path / "start.pth"))
    shapes = ["pipeline.latent_shape=[4,16,16]", "pipeline.embeds_shape=[77,8]"]
    config = compose_job("train", *shapes, f"npnet={tmp_path}/start.pth", "attention=false")
    start = build(config)
    assert start.training and start.config["attention"] is False
    noise, embeds = torch.randn(2, 4, 16, 16), torch.randn(2, 77, 8)
    assert not torch.equal(start(noise, embeds), start(noise, embeds))  # Swin's stochastic depth


def test_a_denoiser_takes_gradient_checkpointing_anew(compose_job, trained, tmp_path, command_line):
    trained("model=denoiser_lora")
    options = command_line("model=denoiser_lora", "model.npnet.gradient_checkpointing=true")
    npnet = build(compose_job("train", f"npnet={tmp_path}/first", *options))
    assert isinstance(npnet, DenoiserNPNet) and npnet.twin.denoiser.is_gradient_checkpointing


@pytest.mark.parametrize(
    ("saved", "given", "message"),
    [
        (["model=vit"], [], r"network of model=vit, not model=svd_unet\+unet: add model=vit"),
        ([], ["model=denoiser_lora"], r"network of model=svd_unet\+unet, not model=denoiser_lora"),
        (["model=denoiser_lora"], [], r"network of model=denoiser_lora"),
        (["model=low_frequency"], [], r"network of model=low_frequency, not model=svd_unet\+unet: add model=low_freq"),
        ([], ["model=low_frequency"], r"network of model=svd_unet\+unet, not model=low_frequency: add model=svd"),
        (["model=low_frequency"], [*LOW, "model.npnet.modes=2"], r"modes=2: .* was built with modes=4"),
        (["model=low_frequency"], [*LOW, "pipeline.latent_shape=[6,8,8]"], r"latent_shape \(4, 8, 8\).* needs \(6"),
        (["model=low_frequency"], [*LOW, "pipeline.embeds_shape=[77,8]"], r"embeds_shape \(16, 128\).* needs \(77"),
        ([], ["model.npnet.attention=false"], r"model\.npnet\.attention=false: .* was built with attention=True"),
        ([], ["recipe.backbone_args.depth=2"], r"recipe\.backbone_args\.depth=2: .* was built with backbone"),
        ([], ["model.npnet.pretrained=true"], r"pretrained=true: .* is built already"),
        ([], ["attention=false"], r"attention=False: .* itself says attention=True"),
        ([], ["pipeline.latent_shape=[4,16,16]"], r"latent_shape \(4, 8, 8\).* needs \(4, 16, 16\)"),
        ([], ["pipeline.embeds_shape=[77,8]"], r"embeds_shape \(16, 128\).* needs \(77, 8\)"),
    ],
)
def test_what_contradicts_the_network_is_refused(compose_job, trained, tmp_path, command_line, saved, given, message):
    trained(*saved)
    command_line(*given)
    with pytest.raises(UserError, match=message) as error:
        build(compose_job("train", *SMALL, f"npnet={tmp_path}/first", *given))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("told", ["attention=false", "target=difference"])
def test_a_new_network_is_not_described_as_a_file(compose_job, told):
    with pytest.raises(UserError, match=rf"for a new network: model\.npnet\.{told.partition('=')[0]}"):
        build(compose_job("train", *SMALL, told))


def test_a_denoiser_of_another_model_is_refused_before_it_is_loaded(compose_job, trained, tmp_path):
    trained("model=denoiser_lora")
    config = compose_job("train", *SMALL, f"npnet={tmp_path}/first", "pipeline.model.source=nowhere")
    with pytest.raises(UserError, match="add model=denoiser_lora"):
        build(config)


def test_a_denoiser_is_not_trained_on_in_float16(compose_job, trained, tmp_path):
    trained("model=denoiser_lora")
    options = ["model=denoiser_lora", "pipeline.model.dtype=float16"]
    with pytest.raises(UserError, match=r"pipeline\.model\.dtype=bfloat16"):
        build(compose_job("train", f"npnet={tmp_path}/first", *options))


@pytest.mark.parametrize("source", ["none", "nobody/no-such", "none.pth", ""])
def test_a_start_that_is_not_there_is_named(compose_job, source):
    with pytest.raises(UserError, match=source or "npnet is empty"):
        build(compose_job("train", f"npnet={source}"))
