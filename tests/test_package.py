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


def test_importing_it_imports_no_library():
    code = "import sys; before = {*sys.modules}; import golden_noise; print(*{*sys.modules} - before)"
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {name.partition(".")[0] for name in imported} <= {"golden_noise", *sys.stdlib_module_names}


def test_golden_latents_waits_for_torch_alone():
    code = "import sys; from golden_noise import golden_latents; print(*sys.modules)"
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    roots = {name.partition(".")[0] for name in imported}
    assert "torch" in roots
    assert not roots & {"diffusers", "hydra", "lightning", "omegaconf", "peft", "timm", "transformers", "wandb"}


def test_a_script_needs_no_package_of_the_jobs():
    """Networks too: diffusers and transformers, and nothing that only an extra brings."""
    code = "import sys; from golden_noise import NPNet, golden_latents, load; print(*sys.modules)"
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    roots = {name.partition(".")[0] for name in imported}
    assert not roots & {"hydra", "lightning", "omegaconf", "peft", "timm", "wandb", "webdataset"}
    assert not {*imported} & {"diffusers.pipelines.pipeline_utils", "golden_noise.pipelines.base"}  # they take seconds


def test_a_missing_package_names_its_extra():
    assert lacking(ModuleNotFoundError("no", name="hydra.core"), "generate") == (
        "generate needs the package hydra: pip install 'golden-noise[generate]'"
    )
    assert lacking(ModuleNotFoundError("no", name="gradio"), "app").endswith("[app]'")
    assert lacking(ModuleNotFoundError("no", name="webdataset"), "pairs").endswith("[train]'")
    assert lacking(ModuleNotFoundError("no", name="my_module"), "train") is None
    assert lacking(ModuleNotFoundError("no"), "train") is None
