"""What users import from the package itself."""

import subprocess
import sys

import pytest

import golden_noise
from golden_noise.extras import lacking
from golden_noise.generation.latents import golden_latents
from golden_noise.npnet import DenoiserNPNet, LowFrequencyNPNet, NPNet
from golden_noise.npnet.checkpoint import load
from golden_noise.pairs import NoisePairDataModule


def test_what_it_offers_is_what_the_rooms_hold():
    offered = [getattr(golden_noise, name) for name in golden_noise.__all__]
    assert offered == [DenoiserNPNet, LowFrequencyNPNet, NPNet, NoisePairDataModule, golden_latents, load]
    assert set(golden_noise.__all__) <= set(dir(golden_noise))


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'golden_noise' has no attribute 'nonsense'"):
        golden_noise.nonsense  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'nonsense'"):
        from golden_noise import nonsense  # noqa: F401


IMPORTS = """
import sys
before = {*sys.modules}
import golden_noise
print(*{*sys.modules} - before)
from golden_noise import golden_latents
print(*sys.modules)
from golden_noise import NPNet, load
print(*sys.modules)
"""


def test_a_script_waits_for_no_more_than_it_uses():
    """`import golden_noise` for nothing, golden_latents for torch, networks for diffusers' base classes."""
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True)
    package, latents, networks = ({*line.split()} for line in done.stdout.splitlines())
    assert roots(package) <= {"golden_noise", *sys.stdlib_module_names}
    of_jobs = {"hydra", "lightning", "omegaconf", "peft", "timm", "wandb", "webdataset"}
    assert "torch" in roots(latents)
    assert not roots(latents) & {"diffusers", "transformers", *of_jobs}
    assert "diffusers" in roots(networks)
    assert not roots(networks) & of_jobs
    assert not networks & {"diffusers.pipelines.pipeline_utils", "golden_noise.pipelines.base"}  # they take seconds


def roots(modules):
    return {name.partition(".")[0] for name in modules}


def test_a_missing_package_names_its_extra():
    assert lacking(ModuleNotFoundError("no", name="hydra.core"), "generate") == (
        "generate needs the package hydra: pip install 'golden-noise[generate]'"
    )
    assert lacking(ModuleNotFoundError("no", name="gradio"), "app").endswith("[app]'")
    assert lacking(ModuleNotFoundError("no", name="webdataset"), "pairs").endswith("[train]'")
    assert lacking(ModuleNotFoundError("no", name="my_module"), "train") is None
    assert lacking(ModuleNotFoundError("no"), "train") is None
