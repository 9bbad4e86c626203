"""The copy of the core: the committed one is what the package makes, and it gives the same golden noise by itself."""

import ast
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from golden_noise.cli.conf import CONF
from golden_noise.npnet import LowFrequencyNPNet, NPNet, checkpoint, vendor
from tests.npnet.test_variants import VARIANTS, trained

COPY = CONF.parent / vendor.TARGET
LATENT, EMBEDS = (4, 6, 10), (5, 12)
SWIN = {"backbone": "swin_tiny_patch4_window7_224", "backbone_args": {}, "backbone_size": 224, "layout": "rows"}
SCRIPT = """
import sys
import torch

torch.set_num_threads(int(sys.argv[3]))
sys.path.insert(0, sys.argv[1])
from core.load import load


def loaded(*packages):
    return {name.partition(".")[0] for name in sys.modules} & {*packages}


golden = []
for case in torch.load(sys.argv[2], weights_only=True):
    network = load(case["file"], **case["options"])
    with torch.no_grad():
        golden.append(network(case["noise"], case["embeds"]))
    assert not loaded("golden_noise", "diffusers", "transformers")
    assert case["timm"] or not loaded("timm")
    assert (network.latent_shape, network.embeds_shape) == (case["latent_shape"], case["embeds_shape"])
    assert not network.training and {p.dtype for p in network.parameters()} == {torch.float32}
torch.save(golden, sys.argv[2])
"""


def test_the_committed_copy_is_what_the_command_makes():
    committed = {file.name: file.read_text("utf-8") for file in COPY.glob("*.py")}
    assert committed == vendor.copies(), "run python -m golden_noise.npnet.vendor"


def test_a_copy_takes_the_place_of_an_older_one(tmp_path, capsys):
    vendor.main([str(tmp_path / "copy")])
    (tmp_path / "copy/gone.py").write_text((tmp_path / "copy/load.py").read_text())
    (tmp_path / "copy/mine.py").write_text("x = 1\n")
    (tmp_path / "copy/load.py").write_text("")
    vendor.main([str(tmp_path / "copy")])
    made = {file.name: file.read_text("utf-8") for file in (tmp_path / "copy").iterdir()}
    assert made == {**vendor.copies(), "mine.py": "x = 1\n"}
    assert capsys.readouterr().out.endswith(f"copy: {len(vendor.copies())} files\n")


def test_the_copy_is_python_3_10_and_names_its_source():
    for name, text in vendor.copies().items():
        ast.parse(text, name, feature_version=(3, 10))
        assert text.startswith("# Vendored from golden_noise/") and name in text.partition(" by ")[0]


def inputs(npnet, size=None, tokens=None, batch=2):
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(batch, npnet.latent_shape[0], *(size or npnet.latent_shape[1:]), generator=generator)
    return noise, torch.randn(batch, tokens or npnet.embeds_shape[0], npnet.embeds_shape[1], generator=generator)


def disturbed(npnet):
    """A network whose parts all act."""
    with torch.no_grad():
        for parameter in npnet.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return npnet.eval()


class Cases:
    """Files, what goes in, and what this package says comes out."""

    def __init__(self, folder: Path):
        self.folder, self.given, self.expected = folder, {}, {}

    def add(self, name, npnet, file, given, **options):
        before = {option: getattr(npnet, option) for option in options}
        for option, value in options.items():
            setattr(npnet, option, value)
        with torch.no_grad():
            self.expected[name] = npnet(*given)
        for option, value in before.items():
            setattr(npnet, option, value)
        shapes = {"latent_shape": npnet.latent_shape, "embeds_shape": npnet.embeds_shape}
        backbone = npnet.config.get("backbone") not in (None, "conv")
        case = {"file": str(file), "options": options, "noise": given[0], "embeds": given[1], "timm": backbone}
        self.given[name] = case | shapes

    def run(self) -> dict[str, torch.Tensor]:
        names = sorted(self.given, key=lambda name: self.given[name]["timm"])
        torch.save([self.given[name] for name in names], self.folder / "cases.pt")
        arguments = [str(COPY.parent), str(self.folder / "cases.pt"), str(torch.get_num_threads())]
        done = subprocess.run([sys.executable, "-I", "-c", SCRIPT, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return dict(zip(names, torch.load(self.folder / "cases.pt", weights_only=True), strict=True))


def add_variants(cases: Cases) -> None:
    for variant in VARIANTS:
        npnet = trained(variant)
        checkpoint.save(npnet, str(cases.folder / f"{variant}.safetensors"))
        checkpoint.save(npnet, str(cases.folder / variant))
        for file in (f"{variant}.safetensors", variant, f"{variant}/config.json"):
            cases.add(f"{file}", npnet, cases.folder / file, inputs(npnet))


def add_uses(cases: Cases) -> None:
    """Other sizes, prompts and dtypes, and nothing at all."""
    torch.manual_seed(0)
    networks = {
        "npnet": NPNet(LATENT, EMBEDS, backbone="conv", backbone_args={"width": 6}),
        "raw": NPNet(LATENT, EMBEDS, signs="raw", attention=False, unit_variance=True),
        "low": LowFrequencyNPNet(LATENT, EMBEDS, 3, width=16, norm_kept=True),
    }
    for name, npnet in networks.items():
        file = cases.folder / f"{name}.safetensors"
        checkpoint.save(disturbed(npnet), str(file))
        for how in ("truncate", "average", "chain"):
            cases.add(f"{name} {how}", npnet, file, inputs(npnet, tokens=13), long_prompt=how)
        for dtype in (torch.float16, torch.bfloat16):
            cases.add(f"{name} {dtype}", npnet, file, [tensor.to(dtype) for tensor in inputs(npnet)])
        cases.add(f"{name} nothing", npnet, file, inputs(npnet, batch=0))
        sizes, fits = [(12, 9), (4, 17), (6, 20)], ["tile", "crop", "resize"] if name != "low" else [None]
        for size, fit in product(sizes, fits):
            cases.add(f"{name} {size} {fit}", npnet, file, inputs(npnet, size), **({"fit": fit} if fit else {}))


def add_published(cases: Cases) -> None:
    torch.manual_seed(0)
    npnet = disturbed(NPNet((4, 8, 8), (77, 2), signs="raw", **SWIN))
    for name in ("published.pth", "described.safetensors"):
        checkpoint.save(npnet, str(cases.folder / name))
    save_file(load_file(cases.folder / "described.safetensors"), cases.folder / "community.safetensors")
    for name in ("published.pth", "described.safetensors", "community.safetensors"):
        cases.add(name, npnet, cases.folder / name, inputs(npnet))


@pytest.mark.long
def test_the_copy_gives_the_same_golden_noise_without_this_package(tmp_path):
    cases = Cases(tmp_path)
    for add in (add_variants, add_uses, add_published):
        add(cases)
    for name, golden in cases.run().items():
        want, noise = cases.expected[name], cases.given[name]["noise"]
        assert golden.dtype == want.dtype and golden.shape == want.shape, name
        torch.testing.assert_close(golden, want, atol=1e-6, rtol=0, msg=lambda text, name=name: f"{name}: {text}")
        assert "nothing" in name or (golden - noise).abs().max() > 1e-3, name


def test_without_timm_a_network_that_needs_it_says_so(tmp_path):
    vit = {"img_size": 8, "patch_size": 2, "in_chans": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
    npnet = NPNet((4, 8, 8), EMBEDS, backbone="vit_tiny_patch16_224", backbone_args=vit)
    checkpoint.save(npnet, str(tmp_path / "vit.safetensors"))
    script = (
        f"import sys; sys.modules['timm'] = None; sys.path.insert(0, {str(COPY.parent)!r})\n"
        "from core.load import load\nfrom core.errors import UserError\n"
        f"try: load({str(tmp_path / 'vit.safetensors')!r})\nexcept UserError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True)
    assert "vit.safetensors: backbone: vit_tiny_patch16_224 needs timm: pip install timm" in done.stdout, done.stderr


@pytest.mark.parametrize("imported", ["import golden_noise.hub", "from golden_noise.files import atomic_file"])
def test_a_module_that_is_not_copied_may_not_be_imported(tmp_path, monkeypatch, imported):
    (tmp_path / "golden_noise/npnet/core").mkdir(parents=True)
    (tmp_path / "golden_noise/npnet/core/new.py").write_text(f"{imported}\n")
    monkeypatch.setattr(vendor, "PACKAGE", tmp_path / "golden_noise")
    monkeypatch.setattr(vendor, "CORE", tmp_path / "golden_noise/npnet/core")
    monkeypatch.setattr(vendor, "BELOW", ())
    with pytest.raises(AssertionError, match=r"new.py imports .*, which is not copied"):
        vendor.copies()
