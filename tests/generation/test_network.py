"""Where the jobs take an NPNet from."""

import pytest
from hydra.utils import instantiate

from golden_noise.errors import UserError
from golden_noise.generation.network import load_npnet
from golden_noise.npnet import DenoiserNPNet, LowFrequencyNPNet, NPNet, checkpoint
from golden_noise.pipelines.lazy import LazyPipeline


@pytest.fixture
def job(compose_job, tmp_path):
    def compose_generate(npnet, *overrides):
        return compose_job("generate", "prompt=a circle", f"npnet={npnet}", *overrides)

    return compose_generate


def load(config):
    return load_npnet(config, config.npnet, LazyPipeline(config.pipeline.model))


def test_another_size_needs_a_way_to_fit(job, tmp_path):
    NPNet((4, 16, 16), (16, 128)).save_pretrained(tmp_path / "npnet")
    with pytest.raises(UserError, match=r"latent_shape \(4, 16, 16\).*\(4, 8, 8\).*fit=tile"):
        load(job(tmp_path / "npnet"))
    npnet = load(job(tmp_path / "npnet", "fit=tile"))
    assert (npnet.fit, npnet.latent_shape) == ("tile", (4, 16, 16))


def test_adapters_take_any_size_and_nothing_to_fit_it(job, tmp_path):
    config = job(tmp_path / "npnet")
    DenoiserNPNet(instantiate(config.pipeline.model), rank=4).save_pretrained(tmp_path / "npnet")
    assert isinstance(load(config), DenoiserNPNet)
    with pytest.raises(UserError, match=r"fit=tile: .* takes any size"):
        load(job(tmp_path / "npnet", "fit=tile"))


def test_one_file_stands_for_its_network(job, tmp_path):
    config = job(tmp_path / "npnet.safetensors")
    for npnet in (DenoiserNPNet(instantiate(config.pipeline.model), rank=4), LowFrequencyNPNet((4, 8, 8), (16, 128))):
        checkpoint.save(npnet, str(tmp_path / "npnet.safetensors"))
        assert type(load(config)) is type(npnet)
    checkpoint.save(NPNet((4, 16, 16), (16, 128)), str(tmp_path / "npnet.safetensors"))
    assert load(job(tmp_path / "npnet.safetensors", "fit=tile")).fit == "tile"
    with pytest.raises(UserError, match=r"latent_shape \(4, 16, 16\).*\(4, 8, 8\)"):
        load(config)


def test_low_frequencies_take_any_size_that_has_them(job, tmp_path):
    LowFrequencyNPNet((4, 16, 12), (16, 128), modes=8).save_pretrained(tmp_path / "npnet")
    assert isinstance(load(job(tmp_path / "npnet")), LowFrequencyNPNet)
    with pytest.raises(UserError, match=r"fit=tile: .* takes any size"):
        load(job(tmp_path / "npnet", "fit=tile"))
    for shape in ("[4,16,7]", "[6,16,16]"):
        with pytest.raises(UserError, match=r"has latent_shape \(4, 16, 12\).* must be at least 8$"):
            load(job(tmp_path / "npnet", f"pipeline.latent_shape={shape}"))
    with pytest.raises(UserError, match=r"has embeds_shape \(16, 128\)"):
        load(job(tmp_path / "npnet", "pipeline.embeds_shape=[77,128]"))


@pytest.mark.parametrize("shapes", [((6, 8, 8), (16, 128)), ((4, 8, 8), (77, 2048))])
def test_other_channels_and_prompts_are_refused(job, tmp_path, shapes):
    NPNet(*shapes, fit="tile").save_pretrained(tmp_path / "npnet")
    with pytest.raises(UserError, match=r"npnet has (latent|embeds)_shape"):
        load(job(tmp_path / "npnet"))


@pytest.mark.parametrize("source", ["none.pth", "none", "nobody/no-such", "nobody/no-such/weights.safetensors"])
def test_missing_npnets_are_named(job, source):
    with pytest.raises(UserError, match=source) as error:
        load(job(source))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nobody.Nothing:outputs", "No module named 'nobody'"),
        ("collections.Nothing:outputs", "no attribute 'Nothing'"),
        ("collections.Counter:outputs", "not a diffusers ModelMixin with golden"),
        ("golden_noise.npnet.NPNet:none", "no folder none"),
        ("golden_noise.npnet.NPNet:.", r"no NPNet in \."),
    ],
)
def test_a_class_of_ones_own_that_cannot_be_loaded_is_named(job, source, words):
    with pytest.raises(UserError, match=words) as error:
        load(job(source))
    assert "\n" not in str(error.value)
