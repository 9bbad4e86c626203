"""The README's Python, run as it stands."""

import re

import pytest
from PIL import Image

from golden_noise.cli import CONF

ROOT = CONF.parent
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A working directory that looks like the repository, for what the snippets read and write."""
    (tmp_path / "golden_noise").symlink_to(ROOT / "golden_noise")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("snippet", SNIPPETS, ids=["diffusers", "parts"])
def test_a_snippet_draws_and_saves_an_image(snippet, clone):
    exec(compile(snippet, "README.md", "exec"), {})
    (image,) = clone.glob("*.png")
    assert len(Image.open(image).getcolors(10_000)) > 50
