"""`run.json`: what a training that ran to its end was and reached. It is written last, so it marks a finished run."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from golden_noise.files import write_atomically

RECORD = "run.json"


def write(folder: Path, record: dict[str, Any]) -> None:
    """Write the record of a run; it appears whole or not at all."""
    write_atomically(folder / RECORD, json.dumps(record, indent=2))


def read(folder: Path, name: str = RECORD) -> dict[str, Any] | None:
    """The record of a run, or None if it did not run to its end."""
    try:
        record = json.loads((folder / name).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def without_name(overrides: Sequence[str]) -> list[str]:
    """The settings that make a run what it is, whatever it is called."""
    return [text for text in overrides if not text.startswith("name=")]


def commit() -> str | None:
    """The commit of this code, with a `+` if there are changes beyond it; None where the code is in no git checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changes = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if changes.stdout.strip() else "")
