"""The contract of every variant of conf/model, built from the config as the train job builds it."""

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from golden_noise.cli.conf import CONF
from golden_noise.cli.config import job_config
from golden_noise.npnet import LowFrequencyNPNet, NPNet

SIZES = {
    "sdxl": ((4, 128, 128), (77, 2048)),
    "hunyuan_dit": ((4, 128, 128), (77, 1024)),
}


def configured(variant, *overrides):
    return job_config("train", [f"model={variant}", "recipe=shapes", *overrides])


def stands_alone(variant):
    """What shares a pipeline's denoiser has a suite of its own."""
    return not OmegaConf.select(configured(variant), "model.npnet._partial_", default=False)


VARIANTS = [name for name in sorted(file.stem for file in (CONF / "model").glob("*.yaml")) if stands_alone(name)]


def build(variant, *overrides):
    torch.manual_seed(0)
    npnet = instantiate(configured(variant, *overrides).model.npnet)
    assert type(npnet) is (LowFrequencyNPNet if variant == "low_frequency" else NPNet)
    return npnet


def inputs(npnet, batch=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(batch, *npnet.latent_shape, generator=generator)
    return noise, torch.randn(batch, *npnet.embeds_shape, generator=generator)


def trained(variant):
    """A network whose parts all act."""
    npnet = build(variant)
    with torch.no_grad():
        for parameter in npnet.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return npnet.eval()


@pytest.fixture(params=VARIANTS)
def variant(request):
    return request.param


def test_the_variants_are_there():
    assert {"unet", "vit", "svd_unet", "svd_unet+unet", "e_unet", "svd_unet+unet+dit"} < set(VARIANTS)
    assert "low_frequency" in VARIANTS and "denoiser_lora" not in VARIANTS


def test_a_new_network_is_the_identity(variant):
    npnet = build(variant)
    noise, embeds = inputs(npnet)
    assert torch.equal(npnet(noise, embeds), noise)
    assert torch.equal(npnet.eval()(noise, embeds), noise)


def test_every_parameter_is_trained(variant):
    npnet = build(variant)
    noise, embeds = inputs(npnet)
    optimizer = torch.optim.SGD(npnet.parameters(), lr=0.1)
    for _ in range(2):  # at the first step the zero layers hide what is before them
        optimizer.zero_grad()
        (npnet(noise, embeds) - torch.randn_like(noise)).square().mean().backward()
        assert [name for name, p in npnet.named_parameters() if p.grad is None or not p.requires_grad] == []
        optimizer.step()
    assert [name for name, p in npnet.named_parameters() if p.grad.abs().max() < 1e-12] == []


def test_evaluation_is_deterministic_and_batches_do_not_mix(variant):
    npnet = trained(variant)
    noise, embeds = inputs(npnet)
    with torch.no_grad():
        golden = npnet(noise, embeds)
        assert (golden - noise).abs().max() > 1e-2
        assert torch.equal(npnet(noise, embeds), golden)
        singles = torch.cat([npnet(noise[i : i + 1], embeds[i : i + 1]) for i in range(len(noise))])
    torch.testing.assert_close(singles, golden, atol=1e-5, rtol=1e-5)


def test_save_and_load_is_bit_exact(variant, tmp_path):
    npnet = trained(variant)
    npnet(*inputs(npnet))
    npnet.save_pretrained(tmp_path)
    loaded = type(npnet).from_pretrained(tmp_path)
    assert not loaded.training
    kept, given = ({k: v for k, v in n.config.items() if not k.startswith("_")} for n in (loaded, npnet))
    assert kept == given
    assert torch.equal(loaded(*inputs(npnet)), npnet(*inputs(npnet)))


def test_it_overfits_two_batches(variant):
    """The golden noise is the noise, shifted by an amount that the prompt decides."""
    npnet = build(variant)
    optimizer = instantiate(configured(variant).model.optimizer)(npnet.parameters())
    batches = [inputs(npnet, batch=4, seed=seed) for seed in range(2)]
    losses = []
    for step in range(80):
        noise, embeds = batches[step % 2]
        golden = noise + 0.5 * embeds[:, 0, :4].sign()[..., None, None]
        loss = (npnet(noise, embeds) - golden).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(0.25)
    assert max(losses[-2:]) < 0.3 * losses[0]


def test_the_learning_rate_is_the_recipes_or_as_published(variant):
    assert configured(variant).model.optimizer.lr == 3e-3
    published = configured(variant, "pipeline=sdxl", "recipe=published")
    assert published.model.optimizer.lr == (1e-5 if variant == "vit" else 1e-4)


def test_options_of_the_network_are_options_of_its_config(variant):
    options = OmegaConf.to_container(configured(variant).model.npnet)
    del options["_target_"], options["_convert_"]
    assert set(options) <= {*build(variant).config, "pretrained"}


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_it_trains_at_full_size(variant, size):
    latent, embeds = SIZES[size]
    shape = [f"pipeline.latent_shape={list(latent)}", f"pipeline.embeds_shape={list(embeds)}"]
    if "pretrained" in configured(variant).model.npnet:
        shape.append("model.npnet.pretrained=false")
    npnet = build(variant, "pipeline=sdxl", "recipe=published", *shape)
    assert (npnet.latent_shape, npnet.embeds_shape) == (latent, embeds)
    noise, prompt = inputs(npnet, batch=2)
    optimizer = torch.optim.AdamW(npnet.parameters(), lr=1e-4)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = (npnet(noise, prompt) - 0.9 * noise - 0.1).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
