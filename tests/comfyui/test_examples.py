"""The example workflows run as they are saved, but for the model."""

import json

import pytest
from PIL import Image, ImageChops

from tests.comfyui.examples import FOLDER, NAMES, example, images, on_miniature

pytestmark = pytest.mark.comfy

PROMPT = "a blue triangle left of a red circle"


@pytest.fixture(scope="module")
def info(server):
    return server.get("/object_info")


def test_the_template_browser_lists_them(server):
    (ours,) = (names for pack, names in server.get("/workflow_templates").items() if pack == "golden-noise")
    assert sorted(ours) == NAMES
    for name in NAMES:
        assert server.get(f"/api/workflow_templates/golden-noise/{name}.jpg").startswith(b"\xff\xd8")


@pytest.mark.parametrize("name", NAMES)
def test_an_example_runs(server, info, name):
    workflow = on_miniature(example(name, info), PROMPT)
    drawn = {prefix: Image.open(file) for prefix, file in images(server.run(workflow), workflow, server.base).items()}
    assert drawn["golden"].size == (32, 32)
    if "plain" in drawn:
        assert ImageChops.difference(drawn["golden"], drawn["plain"]).getbbox()


def test_both_ways_give_the_same_image(server, info):
    golden = []
    for name in NAMES:
        workflow = on_miniature(example(name, info), PROMPT)
        golden.append(Image.open(images(server.run(workflow), workflow, server.base)["golden"]))
    assert max(high for _, high in ImageChops.difference(*golden).getextrema()) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_the_api_form_is_that_of_the_page(info, name):
    assert json.loads((FOLDER / f"api/{name}.json").read_text("utf-8")) == example(name, info)


@pytest.mark.parametrize("name", NAMES)
def test_links_and_nodes_belong_together(info, name):
    page = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    nodes = {node["id"]: node for node in page["nodes"]}
    for link, source, output, target, slot, kind in page["links"]:
        assert link in nodes[source]["outputs"][output]["links"]
        assert nodes[target]["inputs"][slot]["link"] == link
        assert nodes[source]["outputs"][output]["type"] == nodes[target]["inputs"][slot]["type"] == kind
    for node in page["nodes"]:
        if node["type"] in info:
            names = [each["name"] for each in node["outputs"]]
            assert names == info[node["type"]]["output_name"][: len(names)]  # newer versions add outputs
