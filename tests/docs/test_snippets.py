"""The Python of the README and of the pages, run as it stands."""

import re

import pytest
from PIL import Image

from golden_noise.cli.conf import CONF

ROOT = CONF.parent
PAGES = ("README.md", "docs/generate.md", "docs/diffusers.md")


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A working directory that looks like the repository, for what the snippets read and write."""
    (tmp_path / "golden_noise").symlink_to(ROOT / "golden_noise")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_a_snippet_draws_and_saves_an_image(page, clone):
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
    for count, snippet in enumerate(snippets, start=1):
        exec(compile(snippet, page, "exec"), {})
        assert len([*clone.glob("*.png")]) == count
    for image in clone.glob("*.png"):
        assert len(Image.open(image).getcolors(10_000)) > 50
