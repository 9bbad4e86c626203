"""The figures of the miniature's weights, measured on a few images."""

import json

import pytest
from PIL import Image

from golden_noise.shapes import measure
from golden_noise.shapes.scenes import TASKS
from golden_noise.weights import PACKAGE


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    weights = tmp_path_factory.mktemp("measure") / "weights"
    weights.mkdir()
    for part in ("pipeline", "reward"):
        (weights / part).symlink_to(PACKAGE / "shapes/weights" / part)
    sheet = weights / "sheet.png"
    measure.main([f"weights={weights}", "count=24", "guidance=[1.0,2.5]", f"sheet={sheet}"])
    return json.loads((weights / "figures.json").read_text()), sheet


def test_figures_cover_every_part(measured):
    figures, _ = measured
    assert figures["autoencoder"]["strict"] > 0.9
    assert figures["strict_by_guidance"].keys() == {"1", "2.5"}
    for rates in figures["strict_by_guidance"].values():
        assert rates["all"] == pytest.approx(sum(rates[task] for task in TASKS) / len(TASKS), abs=1e-3)
    assert 1 / measure.CHOICES < figures["reward"][f"top1_of_{measure.CHOICES}"] <= 1


def test_sheet_shows_every_task(measured):
    image = Image.open(measured[1])
    assert image.width > len(TASKS) * 32 * measure.ZOOM
    assert image.getcolors(maxcolors=100_000) is not None and len(image.getcolors(maxcolors=100_000)) > 50
