import dataclasses
from html.parser import HTMLParser

import numpy as np
import pytest

from golden_noise.cli.pairs import main
from golden_noise.pairs import Failure, ShardWriter
from golden_noise.pairs.page import histogram
from golden_noise.pairs.stats import acceptance, failures, read_tried, score_rows

from .factory import CONFIG, collect, make_pair


def write(folder, tasks):
    """Accepted pairs gain 0.25 and 0.5 and so on; each second one is rejected and loses as much."""
    pairs = []
    for index, task in enumerate(tasks):
        gain = 0.25 * (index // 2 + 1) * (1 if index % 2 == 0 else -1)
        pair = make_pair(index, accepted=index % 2 == 0)
        prompt = dataclasses.replace(pair.prompt, tags={"task": task} if task else {})
        pairs.append(dataclasses.replace(pair, prompt=prompt, scores={"aes": (5.0, 5.0 + gain), "hpsv2": (0.5, 0.5)}))
    ShardWriter(folder, CONFIG).write(0, pairs)


def test_acceptance_per_task(tmp_path):
    write(tmp_path, ["counting", "counting", "colors", None, "counting"])
    assert acceptance(read_tried(tmp_path)) == {"all": (5, 3), "colors": (1, 1), "counting": (3, 2), "none": (1, 0)}


def test_scores_by_hand(tmp_path):
    """Gains 0.25, -0.25, 0.5, -0.5, 0.75: numpy's quantile interpolates between them in order."""
    write(tmp_path, ["colors"] * 5)
    rows = {row[:3]: row[3:] for row in score_rows(read_tried(tmp_path))}
    assert len(rows) == 6  # two metrics with three rows each; one task alone has none of its own
    count, values = rows["aes", "all", "gain"]
    assert count == 5 and values == pytest.approx([0.15, -0.45, -0.25, 0.25, 0.5, 0.7])
    assert rows["aes", "all", "standard"][1] == [5.0] * 6
    assert rows["hpsv2", "all", "gain"][1] == [0.0] * 6


def test_the_command_prints_tables(tmp_path, capsys):
    collect(tmp_path, [3, 2])
    main(["stats", str(tmp_path)])
    output = capsys.readouterr().out
    assert "71.4%" in output and "hpsv2" in output and "95%" in output


def test_an_empty_folder_has_tables_too(tmp_path, capsys):
    ShardWriter(tmp_path, CONFIG)
    main(["stats", str(tmp_path), "--html", str(tmp_path / "stats.html")])
    assert "tried" in capsys.readouterr().out
    assert "No scores" in (tmp_path / "stats.html").read_text()


def test_failures_are_grouped_by_reason(tmp_path):
    failed = [Failure(index, "<b>bad</b>", reason) for index, reason in enumerate(["rare", "often", "often"])]
    ShardWriter(tmp_path, CONFIG).write(0, [make_pair(9), *failed])
    assert {reason: len(found) for reason, found in failures(tmp_path).items()} == {"often": 2, "rare": 1}
    assert acceptance(read_tried(tmp_path)) == {"all": (1, 1)}


class Page(HTMLParser):
    """What a page fetches, the text in it, and the classes of its rectangles' groups."""

    def __init__(self, html: str):
        super().__init__()
        self.links, self.text, self.tags = [], "", []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href")]

    def handle_data(self, data):
        self.text += data


def test_the_page_shows_all_of_it_and_needs_nothing_else(tmp_path, capsys):
    write(tmp_path / "pairs", ["colors", "colors", "<script>counting"])
    writer = ShardWriter(tmp_path / "pairs", CONFIG)
    writer.write(1, [Failure(9, "</style><script>alert(1)</script>", "RuntimeError: no <noise>")])
    main(["stats", str(tmp_path / "pairs"), "--html", str(tmp_path / "stats.html")])
    assert str(tmp_path / "stats.html") in capsys.readouterr().out
    page = Page((tmp_path / "stats.html").read_text())
    assert "script" not in page.tags and all(link.startswith("data:") for link in page.links)
    for words in ("2 pairs of 3 in 2 shards; 1 prompts failed", "<script>counting", "no <noise>", "aes", "hpsv2"):
        assert words in page.text
    assert "prefers-color-scheme: dark" in page.text


def test_the_bars_of_a_histogram_are_its_counts():
    figure = histogram({"a": np.array([0.0, 0.0, 0.5, 1.0]), "b": np.array([1.0])})
    assert figure["largest"] == 2
    assert [height for _, _, height in figure["bars"]["a"]] == [96.0, 48.0, 48.0]
    (bar,) = figure["bars"]["b"]
    assert bar[0] + bar[1] == pytest.approx(96, abs=0.1)  # up to the axis' right end
    assert histogram({"a": np.array([3.0, 3.0])})["largest"] == 2


def test_no_folder_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        main(["stats", str(tmp_path / "nowhere")])
    assert exit.value.code == 2 and len(capsys.readouterr().err.splitlines()) == 1
