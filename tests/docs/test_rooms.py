"""The picture of the rooms in CONTRIBUTING.md is the one that the import contract enforces."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_picture_shows_the_layers_of_the_import_contract():
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"][0]
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    (picture,) = [block for block in re.findall(r"(?:^    .+\n)+", page, re.MULTILINE) if "__main__" in block]
    assert [re.split(r"\s{2,}", line.strip())[0] for line in picture.splitlines()] == contract["layers"]


def test_every_room_is_in_the_picture():
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"][0]
    shown = {room for layer in contract["layers"] for room in layer.split(" | ")}
    package = ROOT / "golden_noise"
    rooms = {path.stem for path in package.glob("*.py")} | {path.parent.name for path in package.glob("*/__init__.py")}
    assert rooms - {"__init__"} == shown and contract["exhaustive"]
