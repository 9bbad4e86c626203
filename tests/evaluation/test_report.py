"""The report: self-contained, safe against what prompts hold, and honest about losses."""

import base64
import hashlib
import io
import json
import re
import subprocess
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from golden_noise.evaluation.gallery import BYTES, CARDS, chosen, largest_changes, thumbnail
from golden_noise.evaluation.report import Axis, write_report
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
        summary = summarise(scores, config or {"steps": 10}, {"torch": "2.15.0"}, "evaluate")
        write_report(tmp_path, scores, summary, images)
        return (tmp_path / "report.html").read_text("utf-8")

    return rendered


def policy(page):
    return next(attrs["content"] for _, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")


def test_the_page_loads_nothing_and_runs_only_its_own_script(render, make_scores):
    html = render(make_scores())
    page = Page(html)
    links = [value for _, attrs in page.tags for key, value in attrs.items() if key in ("src", "href")]
    assert links and all(link.startswith(("data:image/", "#")) for link in links)
    assert not {"iframe", "object", "embed"} & {tag for tag, _ in page.tags}
    assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)
    (script,) = re.findall("<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy(page).endswith(f"script-src 'sha256-{digest}'")
    assert "default-src 'none'" in policy(page)


def test_text_from_outside_cannot_become_markup(render, make_scores):
    scores = make_scores(n=12, methods=["standard", "npnet", HOSTILE], tasks=(HOSTILE,))
    for item in scores.items:
        item["prompt"] = HOSTILE
    scores.diversity[HOSTILE] = {method: np.ones(3) for method in scores.methods}
    html = render(scores, config={HOSTILE: HOSTILE})
    page = Page(html)
    assert [tag for tag, _ in page.tags].count("script") == 1 and "<img src=http" not in html
    assert not any("onerror" in attrs for _, attrs in page.tags)
    assert "{{ 7*7 }}" in html


def test_all_that_the_script_looks_for_is_there(render, make_scores):
    html = render(make_scores())
    tags = Page(html).tags
    ids = [attrs["id"] for _, attrs in tags if "id" in attrs]
    assert sorted(ids) == sorted(set(ids))
    script = html[html.index("<script>") :]
    names = {f"#{id}" for id in ids} | {tag for tag, _ in tags}
    for tag, attrs in tags:
        for name in (attrs.get("class") or "").split():
            names |= {f".{name}", f"{tag}.{name}"}
    selectors = set(re.findall(r'(?:find|closest)\("([^"]+)"', script)) | set(re.findall(r'"(\.\w+)"', script))
    assert len(selectors) > 10 and selectors <= names
    data = {f"data-{name}" for name in re.findall(r"dataset\.(\w+)", script)}
    assert data == {"data-task", "data-changes", "data-file"} and data <= {key for _, attrs in tags for key in attrs}
    fields = {attrs["name"] for tag, attrs in tags if tag in ("select", "input")}
    assert set(re.findall(r"field\.(\w+)\.value", script)) == fields
    values = {attrs["value"] for _, attrs in tags if attrs.get("value")}
    assert {"gains", "losses", "win", "loss", "close", "-1", "1"} <= values
    assert all(re.search(rf"\b{value}\b", script) for value in ("gains", "losses", "win", "loss", "close"))


DRIVER = """
const found = { errors: [] };
for (const kind of ["error", "securitypolicyviolation"])
  addEventListener(kind, (event) => found.errors.push(event.message || event.violatedDirective));
addEventListener("DOMContentLoaded", () => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const texts = (selector) => all(selector).map((node) => node.textContent);
  const field = document.querySelector("#filters").elements;
  const set = (name, value) => {
    field[name].value = value;
    all("#filters")[0].dispatchEvent(new Event("input"));
    return { count: texts("#count")[0], prompts: texts("#cards .prompt"), changes: texts("#cards .chip").map(Number) };
  };
  found.start = set("words", "");
  found.task = set("task", "position");
  set("task", "");
  found.words = set("words", "Number 17");
  set("words", "");
  found.wins = set("outcome", "win");
  set("outcome", "");
  set("metric", "1");
  found.gains = set("order", "gains");
  found.losses = set("order", "losses");
  all("#more")[0].click();
  found.more = texts("#count")[0];
  all("button.enlarge")[0].click();
  found.first = [all("#zoom")[0].open, ...texts("#zoom .prompt"), all("#zoom img").length, all("#zoom a").length];
  all("#zoom button[value='1']")[0].click();
  found.second = texts("#zoom .prompt")[0];
  all("#zoom button[value=close]")[0].click();
  found.closed = !all("#zoom")[0].open;
  const result = document.createElement("pre");
  result.id = "found";
  result.textContent = JSON.stringify(found);
  document.body.append(result);
});
"""


@pytest.mark.browser
def test_filters_sorting_search_and_zoom_in_a_browser(render, make_scores, tmp_path):
    scores = make_scores(n=60)
    html, digest = render(scores), base64.b64encode(hashlib.sha256(DRIVER.encode()).digest()).decode()
    html = html.replace("script-src '", f"script-src 'sha256-{digest}' '").replace(
        "<style>", f"<script>{DRIVER}</script><style>", 1
    )
    (tmp_path / "driven.html").write_text(html, "utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    command = ["chromium", *options, f"--user-data-dir={tmp_path}/user", "--dump-dom", f"file://{tmp_path}/driven.html"]
    page = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout
    found = json.loads(unescape(re.findall('<pre id="found">(.*?)</pre>', page, re.DOTALL)[0]))

    assert found["errors"] == []
    assert found["start"]["count"] == "24 of 60 pairs"
    tasks = [item["task"] for item in scores.items]
    assert found["task"]["count"].endswith(f"of {tasks.count('position')} pairs")
    assert found["words"]["prompts"] == [scores.items[17]["prompt"]]
    change = {metric: scores.values[metric]["npnet"] - scores.values[metric]["standard"] for metric in scores.metrics}
    assert len(found["wins"]["prompts"]) == min(24, (change["strict"] > 0).sum())
    assert min(found["wins"]["changes"]) > 0
    for order, expected in (("gains", -np.sort(-change["soft"])), ("losses", np.sort(change["soft"]))):
        assert found[order]["changes"] == pytest.approx(expected[:24], abs=1e-3)
    assert found["more"] == "48 of 60 pairs"
    worst = [scores.items[i]["prompt"] for i in np.argsort(change["soft"])]
    assert found["first"] == [True, worst[0], 3, 3]
    assert found["second"] == worst[1] and found["closed"]


def test_cards_carry_what_filters_and_sorting_need(render, make_scores):
    scores = make_scores(n=30)
    page = Page(render(scores))
    cards = [attrs for tag, attrs in page.tags if tag == "article"]
    assert [card["data-task"] for card in cards] == [item["task"] for item in scores.items]
    changes = np.array([json.loads(card["data-changes"]) for card in cards])  # (pair, method, metric)
    assert changes.shape == (30, 2, 2)
    for m, method in enumerate(("search", "npnet")):
        for k, metric in enumerate(("strict", "soft")):
            expected = scores.values[metric][method] - scores.values[metric]["standard"]
            assert changes[:, m, k] == pytest.approx(expected, abs=1e-5)
    options = [attrs.get("value") for tag, attrs in page.tags if tag == "option"]
    assert options[:4] == ["0", "1", "0", "1"]
    files = [attrs["data-file"] for tag, attrs in page.tags if tag == "figure"]
    assert files[:3] == [f"images/{method}/000100.png" for method in ("standard", "search", "npnet")]


def test_of_a_large_set_the_extremes_and_a_random_sample_are_shown(make_scores):
    scores = make_scores(n=5_000)
    positions = chosen(scores)
    assert len(positions) == CARDS and positions == sorted(set(positions))
    for sign in (1, -1):
        assert set(largest_changes(scores, "npnet", sign)[: CARDS // 4]) <= set(positions)
    assert chosen(make_scores(n=CARDS)) == list(range(CARDS))


def test_gains_come_first_by_the_first_metric_then_by_the_others(make_scores):
    scores = make_scores(n=80)
    change = scores.values["strict"]["npnet"] - scores.values["strict"]["standard"]
    graded = scores.values["soft"]["npnet"] - scores.values["soft"]["standard"]
    assert largest_changes(scores, "npnet", 1) == sorted(np.flatnonzero(change > 0), key=lambda i: -graded[i])
    assert largest_changes(scores, "npnet", -1) == sorted(np.flatnonzero(change < 0), key=lambda i: graded[i])


def test_an_item_that_did_not_change_is_neither_gain_nor_loss(make_scores):
    scores = make_scores(n=6)
    scores.values["strict"]["npnet"] = scores.values["strict"]["standard"].copy()
    assert largest_changes(scores, "npnet", 1) == largest_changes(scores, "npnet", -1) == []
    scores.values["strict"]["npnet"][4] += 1
    assert largest_changes(scores, "npnet", 1) == [4]


def decoded(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


def test_small_images_are_embedded_exactly_and_controls_are_left_out(render, make_scores):
    asked = []

    def images(method, i):
        asked.append((method, i))
        return pixels(method, i)

    page = Page(render(make_scores(n=20), images))
    embedded = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    assert asked == [(method, i) for i in range(20) for method in ("standard", "search", "npnet")]
    for uri, (method, i) in zip(embedded, asked, strict=True):
        assert decoded(uri).size == (32, 32)
        assert decoded(uri).getpixel((0, 0)) == pixels(method, i).getpixel((0, 0))


def test_photographs_become_thumbnails_that_keep_within_the_bytes():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (768, 1024, 3), dtype=np.uint8))
    for most in (4_000, 20_000):
        uri = thumbnail(noise, most)
        assert len(uri) <= most
        width, height = decoded(uri).size
        assert width / height == pytest.approx(4 / 3, abs=0.05)


def test_a_report_of_a_thousand_pairs_stays_small(render, make_scores):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    scores = make_scores(n=1_000, methods=["standard", "search", "npnet"])
    html = render(scores, lambda method, i: noise)
    page = Page(html)
    assert page.tags.count(("p", {"class": "prompt"})) == 1_000
    assert BYTES / 8 < len(html) < 15_000_000
    # 3,000 of these exceed the bytes, so all are shrunk, not just those after the limit.
    assert all(attrs.get("class") == "photo" for tag, attrs in page.tags if tag == "img")


def test_verdict_config_versions_and_command_are_there(render, make_scores):
    html = render(make_scores(), config={"pipeline": {"guidance": 1.5}})
    assert html.index("NPNet ") < html.index("<table>")
    for text in ("guidance: 1.5", "2.15.0", "<pre>evaluate</pre>", "prefers-color-scheme: dark"):
        assert text in html


def test_the_cost_is_shown_where_it_was_counted(render, make_scores):
    scores = make_scores()
    assert "calls" not in render(scores)
    scores.calls.update(standard=7654.5, search=1510.0)
    html = render(scores)
    assert html.count(">calls</th>") == 2
    assert all(html.count(f'<td class="number">{calls}</td>') == 2 for calls in ("7,654.5", "1,510"))


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


def test_every_method_has_a_row_in_the_forest_of_the_method_under_test(render, make_scores):
    html = render(make_scores(methods=["standard", "search", "npnet", "best_of_n", "second"]))
    (forest, _) = (part.split("<h3>")[0] for part in html.split("<h3>NPNet minus the other methods</h3>")[1:])
    assert re.findall(r'<i class="key \w+"></i>([\w ]+)', forest) == ["search", "best of N", "second"]
    assert "minus the other methods" not in render(make_scores(methods=["standard", "npnet"]))


def test_the_page_says_what_was_resampled(render, make_scores):
    assert "60 pairs of prompt and seed, 7 methods" in render(make_scores())
    scores = make_scores()
    for i, item in enumerate(scores.items):
        item["prompt"] = f"prompt {i % 12}"
    html = render(scores)
    assert "60 pairs of 12 prompts, 7 methods" in html
    assert "n = 30 / 6" in html and "position (6)" in html


def test_the_search_of_the_constant_is_shown(render, make_scores):
    assert 'id="constant"' not in render(make_scores())
    found = {"factor": 0.6, "metric": "strict", "prompts": 15, "scores": {"0.6": 0.8125, "1": 0.5}}
    page = render(replace(make_scores(), constant=found))
    assert "The control is noise × 0.6: of these factors the best by strict, on 15 prompts" in page
    assert "<b>0.812</b>" in page and ">0.500</td>" in page
