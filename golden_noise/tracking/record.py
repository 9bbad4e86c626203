"""`run.json`: the settings and results of a training. It is written last, so it marks a finished run."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from golden_noise.files import is_machines, naming, write_atomically

RECORD = "run.json"


def write(folder: Path, record: dict[str, Any], name: str = RECORD) -> None:
    """Write the record of a run; it appears whole or not at all."""
    write_atomically(folder / name, json.dumps(record, indent=2))


def read(folder: Path, name: str = RECORD) -> dict[str, Any] | None:
    """The record of a run, or None if it is missing or damaged."""
    try:
        with naming(folder / name):
            record = json.loads((folder / name).read_text("utf-8"))
    except (OSError, ValueError) as error:
        if is_machines(error):
            raise
        return None
    return record if isinstance(record, dict) else None


def without_name(overrides: Sequence[str]) -> list[str]:
    """The settings of a run without its name."""
    return [text for text in overrides if not text.startswith("name=")]


def commit() -> str | None:
    """The commit of this code, with a `+` for uncommitted changes; None outside a git checkout."""
    describe = ["git", "describe", "--always", "--exclude=*", "--abbrev=12", "--dirty=+"]
    here = Path(__file__).parent
    try:
        return subprocess.run(describe, cwd=here, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
