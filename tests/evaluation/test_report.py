"""The report: self-contained, safe against what prompts hold, and honest about losses."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from golden_noise.evaluation.report import GALLERY, Axis, largest_changes, write_report
from golden_noise.evaluation.results import summarise

HOSTILE = "<script>alert(1)</script><img src=http://x.test/a onerror=alert(2)> \" ' & {{ 7*7 }}"


class Page(HTMLParser):
    """What a browser would see: tags with attributes, and the text of each prompt."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.prompts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    handle_startendtag = handle_starttag

    def handle_data(self, data):
        if self.tags and self.tags[-1] == ("p", {"class": "prompt"}) and data.strip():
            self.prompts.append(data)


def pixels(method: str, i: int) -> Image.Image:
    return Image.new("RGB", (32, 32), (i % 256, len(method), 0))


@pytest.fixture
def render(tmp_path):
    def rendered(scores, images=pixels, config=None):
        summary = summarise(scores, config or {"steps": 10}, {"torch": "2.15.0"}, {"sampling": 3.0}, "evaluate")
        write_report(tmp_path, scores, summary, images)
        return (tmp_path / "report.html").read_text("utf-8")

    return rendered


def test_the_page_loads_nothing_and_runs_nothing(render, make_scores):
    page = Page(render(make_scores()))
    links = [value for _, attrs in page.tags for key, value in attrs.items() if key in ("src", "href")]
    assert links and all(link.startswith("data:image/png;base64,") for link in links)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)


def test_text_from_outside_cannot_become_markup(render, make_scores):
    scores = make_scores(n=9, methods=["standard", "npnet", HOSTILE], tasks=(HOSTILE,))
    for item in scores.items:
        item["prompt"] = HOSTILE
    html = render(scores, config={HOSTILE: HOSTILE})
    page = Page(html)
    assert "<script" not in html and "<img src=http" not in html
    assert not any("onerror" in attrs for _, attrs in page.tags)
    assert "{{ 7*7 }}" in html


def test_galleries_show_gains_then_losses_in_order(render, make_scores):
    scores = make_scores(n=80)
    change = scores.values["strict"]["npnet"] - scores.values["strict"]["standard"]
    graded = scores.values["soft"]["npnet"] - scores.values["soft"]["standard"]
    gains = sorted(np.flatnonzero(change > 0), key=lambda i: -graded[i])
    losses = sorted(np.flatnonzero(change < 0), key=lambda i: graded[i])
    assert min(len(gains), len(losses)) > GALLERY
    html = render(scores)
    shown = [int(number) for number in re.findall(r"seed \d+ · item (\d+)", html)]
    positions = [index - 100 for index in shown]
    assert positions[:GALLERY] == gains[:GALLERY]
    assert positions[GALLERY : 2 * GALLERY] == losses[:GALLERY]
    sample = positions[2 * GALLERY :]
    assert len(set(sample)) == GALLERY and set(sample) <= set(range(80))
    assert f"in {len(losses)} of 80 pairs" in html


def test_an_item_that_did_not_change_is_neither_gain_nor_loss(make_scores):
    scores = make_scores(n=6)
    scores.values["strict"]["npnet"] = scores.values["strict"]["standard"].copy()
    assert largest_changes(scores, "npnet", 1) == largest_changes(scores, "npnet", -1) == []
    scores.values["strict"]["npnet"][4] += 1
    assert largest_changes(scores, "npnet", 1) == [4]


def test_only_the_galleries_images_are_read_and_embedded_exactly(render, make_scores):
    asked = []

    def images(method, i):
        asked.append((method, i))
        return pixels(method, i)

    page = Page(render(make_scores(n=300), images))
    embedded = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    assert len(embedded) == len(asked) == 3 * 3 * GALLERY
    assert [method for method, _ in asked[:3]] == ["standard", "search", "npnet"]
    first = Image.open(io.BytesIO(base64.b64decode(embedded[0].split(",")[1])))
    assert first.size == (32, 32)
    assert first.getpixel((0, 0)) == pixels(*asked[0]).getpixel((0, 0))


def test_photographs_are_embedded_as_thumbnails(render, make_scores):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (768, 1024, 3), dtype=np.uint8))
    html = render(make_scores(n=40), lambda method, i: noise)
    assert len(html) < 5_000_000
    embedded = next(attrs["src"] for tag, attrs in Page(html).tags if tag == "img")
    assert Image.open(io.BytesIO(base64.b64decode(embedded.split(",")[1]))).size == (256, 192)


def test_verdict_config_versions_and_command_are_there(render, make_scores):
    html = render(make_scores(), config={"pipeline": {"guidance": 1.5}})
    assert html.index("NPNet ") < html.index("<table>")
    for text in ("guidance: 1.5", "2.15.0", "<pre>evaluate</pre>", "prefers-color-scheme: dark"):
        assert text in html


@pytest.mark.parametrize("methods", [["standard"], ["standard", "search"], ["standard", "best_of_4"]], ids=str)
def test_a_report_of_few_methods_on_one_item_is_complete(render, make_scores, methods):
    html = render(make_scores(n=1, methods=methods, tasks=("",)))
    assert "NPNet was not evaluated" in html
    assert "NPNet minus" not in html
    assert Page(html).prompts == ['a "red" circle, number 0'] * html.count('class="prompt"')


@given(st.lists(st.floats(-1e4, 1e4).map(lambda x: round(x, 4)), min_size=1, max_size=6))
def test_an_axis_holds_all_values_and_has_distinct_ticks_in_order(values):
    axis = Axis.over(values)
    assert all(0 <= axis.at(value) <= 100 for value in values)
    positions = [position for position, _ in axis.ticks]
    labels = [float(label) for _, label in axis.ticks]
    assert 2 <= len(positions) <= 8
    assert positions == sorted(set(positions)) and labels == sorted(set(labels))
    assert all(0 <= position <= 100 for position in positions)
