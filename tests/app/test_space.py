"""The files of the Hugging Face Space."""

import subprocess
import sys
import tomllib

import yaml

from golden_noise.cli.conf import CONF

ROOT = CONF.parent
SPACE = ROOT / "app"


def test_it_installs_what_the_package_needs_and_gradio():
    lines = [line for line in (SPACE / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *extras["generate"], *extras["evaluate"]]
    assert lines[:-1] == [line for line in needed if not line.startswith("golden-noise")]
    assert lines[-1].startswith("gradio>=6")


def test_its_header_names_what_is_there():
    header = yaml.safe_load((SPACE / "README.md").read_text("utf-8").split("---")[1])
    assert header["sdk"] == "gradio" and (SPACE / header["app_file"]).is_file()
    assert len(header["short_description"]) <= 60  # the hub's limit


def test_it_starts_beside_the_package_and_its_settings(tmp_path):
    """As docs/app.md lays the Space out; it ends where it would load models."""
    for path in (*SPACE.iterdir(), ROOT / "golden_noise", ROOT / "conf"):
        (tmp_path / path.name).symlink_to(path)
    code = "import runpy, sys; sys.argv = ['app.py']; import golden_noise.app.command as c;"
    code += "c.serve = lambda options: print(options.host); runpy.run_path('app.py', run_name='__main__')"
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout == "0.0.0.0\n"
