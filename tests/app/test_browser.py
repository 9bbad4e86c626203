"""The page in a real browser, served by the real command."""

import io
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from golden_noise.app.page import EXAMPLES
from golden_noise.cli.conf import CONF
from golden_noise.images import TEXT

pytestmark = pytest.mark.browser
BROWSER = "/usr/bin/chromium"
SLOWLY = 60_000  # milliseconds that a slow machine may take


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Where the app answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("app") / "log"
    command = [sys.executable, "-m", "golden_noise", "app", "device=cpu", "--port", str(port), "paths.outputs=nowhere"]
    environment = os.environ | {"PYTHONPATH": str(CONF.parent), "PYTHONUNBUFFERED": "1"}
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out, env=environment) as app:
        while "golden-noise app: " not in log.read_text():
            assert app.poll() is None, log.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
        app.terminate()
        said = log.read_text()
    assert "Traceback" not in said, said


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, address):
    """Opens pages, each of a visitor of its own; in the end none of them has complained or left the machine."""
    pages, complaints = [], []

    def opened(**options):
        page = chromium.new_context(viewport={"width": 1200, "height": 900}, **options).new_page()
        page.set_default_timeout(SLOWLY)
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda sent: None if sent.url.startswith((address, "data:", "blob:")) else
                complaints.append(sent.url))  # fmt: skip
        page.goto(address)
        page.wait_for_selector("#draw")
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.context.close()
    assert complaints == []


def draw(page):
    page.click("#draw")
    expect(page.locator("#scores_drawn table")).to_be_visible(timeout=SLOWLY)


def picture(page, name):
    """The file of a picture: what its download button saves."""
    page.wait_for_selector(f"#{name}_picture img")
    link = page.locator(f"#{name}_picture a[download]").get_attribute("href")
    return Image.open(io.BytesIO(page.request.get(link).body()))


def code(page, name):
    """The text of a block of code in the folded part."""
    label = page.locator("button.label-wrap:visible", has_text="Make it again")
    if "open" not in label.get_attribute("class").split():
        label.click()
    expect(page.locator(f"#{name} .cm-line").first).to_be_visible(timeout=SLOWLY)
    return "\n".join(page.locator(f"#{name} .cm-line").all_inner_texts())


def set_number(page, name, value):
    field = page.locator(f"#{name} input[type=number]")
    field.fill(str(value))
    field.blur()


def test_an_example_fills_in_the_prompt(visit):
    page = visit()
    page.get_by_text(EXAMPLES[1], exact=True).click()
    expect(page.locator("#prompt textarea")).to_have_value(EXAMPLES[1])


def test_standard_and_golden_are_drawn_scored_and_can_be_made_again(visit):
    page = visit()
    draw(page)
    golden = picture(page, "golden")
    facts = json.loads(golden.text[TEXT])
    assert golden.size == (32, 32)
    assert (facts["prompt"], facts["seed"], facts["noise"]) == ("a blue triangle left of a red circle", 3, "golden")
    assert len(facts["made_by"]["npnet"]) == 64
    rows = page.locator("#scores_drawn tbody tr").all_inner_texts()
    assert [row.split("\t")[0] for row in rows] == ["standard", "golden"]
    assert "golden-noise generate" in code(page, "command_drawn")
    assert "pipeline.sample(" in code(page, "python_drawn")
    with page.expect_download() as download:
        page.locator("#golden_picture a[download]").click()
    assert download.value.suggested_filename == "seed3_golden.png"


def test_strength_0_is_standard_and_a_factor_shows_a_third(visit):
    page = visit()
    set_number(page, "strength", 0)
    set_number(page, "factor", 0.7)
    draw(page)
    standard, golden, scaled = (np.asarray(picture(page, name)) for name in ("standard", "golden", "scaled"))
    assert (standard == golden).all() and (standard != scaled).any()
    assert "strength=0" in code(page, "command_drawn") and "search=rescale search.factor=0.7" in code(
        page, "command_drawn"
    )


def test_a_mistake_is_one_line_on_the_page(visit):
    page = visit()
    page.locator("#prompt textarea").fill("   ")
    page.click("#draw")
    expect(page.get_by_text("The prompt is empty: write what the picture is to show.")).to_be_visible(timeout=SLOWLY)
    page.locator("#prompt textarea").fill("a red <b>zebra</b> ${oc.env:HOME}")
    page.click("#draw")
    expect(page.get_by_text("This model was never trained on:")).to_be_visible(timeout=SLOWLY)
    expect(page.get_by_text("strict, soft: cannot judge this prompt")).to_be_visible(timeout=SLOWLY)
    assert "${oc.env:HOME}" in json.loads(picture(page, "golden").text[TEXT])["prompt"]


def test_a_grid_of_seeds(visit):
    page = visit()
    page.get_by_role("tab", name="Several seeds").click()
    set_number(page, "count", 3)
    page.click("#draw_all")
    expect(page.locator("#scores_of_all table")).to_be_visible(timeout=SLOWLY)
    expect(page.locator("#gallery img")).to_have_count(6)
    captions = page.locator("#gallery .caption-label").all_inner_texts()
    assert [text.partition(":")[0] for text in captions] == [
        f"{s}, {n}" for s in (3, 4, 5) for n in ("standard", "golden")
    ]
    assert "images_per_prompt=3" in code(page, "command_all")


def search(page, name, length):
    page.get_by_role("tab", name="Search").click()
    page.locator("#search input").click()
    page.get_by_role("option", name=name).click()
    page.wait_for_timeout(500)  # the length that fits the search arrives
    set_number(page, "length", length)
    page.click("#start")
    expect(page.locator("#progress")).to_contain_text("best reward so far", timeout=SLOWLY)


def test_a_search_shows_how_far_it_is_and_ends(visit):
    page = visit()
    search(page, "zero order", 2)
    expect(page.locator("#scores_found table")).to_be_visible(timeout=SLOWLY)
    expect(page.locator("#progress")).to_contain_text("44 of 44 forward passes")
    assert json.loads(picture(page, "found").text[TEXT])["made_by"]["search"]["rounds"] == 2
    assert "search=zero_order search.rounds=2" in code(page, "command_found")
    expect(page.locator("#start")).to_be_visible()
    expect(page.locator("#stop")).to_be_hidden()


def test_a_search_can_be_stopped(visit):
    page = visit()
    search(page, "best of n", 400)
    page.click("#stop")
    expect(page.locator("#progress")).to_contain_text("stopped", timeout=SLOWLY)
    done = int(re.search(r"([\d,]+) of 1,608", page.locator("#progress").inner_text())[1].replace(",", ""))
    assert done < 1600
    expect(page.locator("#start")).to_be_visible(timeout=SLOWLY)
    page.get_by_role("tab", name="Compare").click()
    draw(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_horizontal_scrolling(visit, scheme):
    page = visit(color_scheme=scheme)
    page.set_viewport_size({"width": 375, "height": 800})
    set_number(page, "factor", 0.7)
    draw(page)
    page.get_by_role("tab", name="Several seeds").click()
    page.click("#draw_all")
    expect(page.locator("#scores_of_all table")).to_be_visible(timeout=SLOWLY)
    code(page, "command_all")
    for tab in ("Search", "Several seeds", "Compare"):
        page.get_by_role("tab", name=tab).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 375, tab
    assert page.locator("body").evaluate("body => body.classList.contains('dark')") == (scheme == "dark")


def test_two_visitors_at_once_get_their_own(visit):
    one, two = visit(), visit()
    one.locator("#prompt textarea").fill("two red triangles")
    two.locator("#prompt textarea").fill("a yellow cross and a purple circle")
    set_number(two, "seed", 8)
    search(one, "best of n", 20)
    draw(two)  # waits for the search, in the queue
    expect(one.locator("#scores_found table")).to_be_visible(timeout=SLOWLY)
    facts = [json.loads(picture(*found).text[TEXT]) for found in ((one, "found"), (two, "golden"))]
    assert [(fact["prompt"], fact["seed"]) for fact in facts] == [
        ("two red triangles", 3),
        ("a yellow cross and a purple circle", 8),
    ]


def test_a_visitor_who_leaves_does_not_hold_up_the_next(visit):
    page = visit()
    search(page, "best of n", 400)
    page.close()
    draw(visit())


def test_files_and_addresses_are_not_served(address):
    secret = CONF.parent / "README.md"
    for path in (f"file={secret}", "file=/etc/passwd", "file=http://127.0.0.1:1/x", "proxy=http://127.0.0.1:1/x"):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(f"{address}/gradio_api/{path}")
        assert error.value.code == 403
    for name in ("upload", "call/draw", "api/draw"):
        request = urllib.request.Request(f"{address}/gradio_api/{name}", b"{}", {"Content-Type": "application/json"})
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(request)
        assert error.value.code == 403
