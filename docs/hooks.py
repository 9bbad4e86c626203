"""Gathers the pages for mkdocs in the layout of the repository: so links mean the same on a forge and on the site."""

import re
import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FILES = ("*.md", "docs/*.md", "docs/site.css", "experiments/**/*.md", "benchmarks/*.md", "comfyui/**/*.md")
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")


def on_config(config: Any) -> None:
    """Copies every page, and every file that a page links to."""
    source = Path(config["docs_dir"])
    shutil.rmtree(source, ignore_errors=True)
    for pattern in FILES:
        for page in sorted(ROOT.glob(pattern)):
            _copy(page, source)
            for link in LINK.findall(page.read_text("utf-8")):
                if (target := page.parent / link).is_file():
                    _copy(target.resolve(), source)


def _copy(file: Path, source: Path) -> None:
    target = source / file.relative_to(ROOT)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)
