"""The figures of the miniature's weights, measured on a few images."""

import json

import pytest
from PIL import Image

from experiments.miniature import measure
from golden_noise.shapes.scenes import TASKS


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("measure")
    figures, sheet = folder / "figures.json", folder / "sheet.png"
    measure.main(["count=24", "guidance=[1.0,2.5]", f"figures={figures}", f"sheet={sheet}"])
    return json.loads(figures.read_text()), sheet


def test_help_comes_before_any_work(capsys):
    with pytest.raises(SystemExit) as left:
        measure.main(["--help"])
    assert not left.value.code
    assert "count: 1200" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argument", "words"),
    [("cuont=3", "no setting cuont"), ("count", "count is not KEY=VALUE"), ("guidance=[1", "while parsing")],
)
def test_a_mistake_is_one_line(argument, words):
    with pytest.raises(SystemExit, match=rf"^error: {words}.*; see --help\Z"):
        measure.main([argument])


@pytest.mark.slow
def test_figures_cover_every_part(measured):
    figures, _ = measured
    assert figures["autoencoder"]["strict"] > 0.9
    assert figures["strict_by_guidance"].keys() == {"1", "2.5"}
    for rates in figures["strict_by_guidance"].values():
        assert rates["all"] == pytest.approx(sum(rates[task] for task in TASKS) / len(TASKS), abs=1e-3)
    assert 1 / measure.CHOICES < figures["reward"][f"top1_of_{measure.CHOICES}"] <= 1


@pytest.mark.slow
def test_sheet_shows_every_task(measured):
    image = Image.open(measured[1])
    assert image.width > len(TASKS) * 256
    assert image.getcolors(maxcolors=100_000) is not None and len(image.getcolors(maxcolors=100_000)) > 50
