"""The site: every page is on it, and every name of its reference is documented."""

import inspect
import pkgutil
import re

import pytest
import yaml

import golden_noise

from .pages import PAGES, ROOT

REFERENCE = re.findall(r"^::: ([\w.]+)$", (ROOT / "docs/api.md").read_text("utf-8"), re.MULTILINE)
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))


def pages(node):
    """The files of a part of the navigation."""
    if isinstance(node, str):
        return {node}
    return set().union(*map(pages, node.values() if isinstance(node, dict) else node))


def test_every_page_is_in_the_navigation():
    nodes = {str(page.relative_to(ROOT)) for page in PAGES if "web/docs" not in str(page)}
    assert pages(SITE["nav"]) == nodes | {"CHANGELOG.md", "benchmarks/README.md"}


def test_the_reference_has_what_the_package_offers():
    assert {f"golden_noise.{name}" for name in golden_noise.__all__} <= set(REFERENCE)


@pytest.mark.parametrize("name", REFERENCE)
def test_a_name_of_the_reference_is_documented_with_all_its_parts(name):
    found = pkgutil.resolve_name(name)
    assert inspect.getdoc(found), name
    for part in [part for part, value in vars(found).items() if is_own(found, part, value)]:
        assert inspect.getdoc(getattr(found, part)), f"{name}.{part}"


def is_own(found, part, value):
    """Whether a part of a module or class is public and defined there."""
    if part.startswith("_") or not (inspect.ismodule(found) or inspect.isclass(found)):
        return False
    if isinstance(value, property):
        return True
    home = found.__name__ if inspect.ismodule(found) else found.__module__
    return (inspect.isroutine(value) or isinstance(value, type)) and getattr(value, "__module__", home) == home
