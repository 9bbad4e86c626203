"""The lower bounds of pyproject.toml are the versions of constraints-oldest.txt, with which the tests were run."""

import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from golden_noise.cli.conf import CONF

NOT_IN_DEV = {"remote", "comfy"}  # extras that the tests do without


def needs() -> list[Requirement]:
    project = tomllib.loads((CONF.parent / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = project["dependencies"] + [line for name in extras.keys() - NOT_IN_DEV for line in extras[name]]
    return [need for need in map(Requirement, sorted(lines)) if need.specifier]


@pytest.fixture(scope="module")
def oldest() -> dict[str, Version]:
    lines = (CONF.parent / "constraints-oldest.txt").read_text("utf-8").splitlines()
    pins = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pins}


@pytest.mark.parametrize("need", needs(), ids=lambda need: need.name)
def test_a_lower_bound_is_the_oldest_version_tried(need, oldest):
    (lowest,) = (Version(bound.version) for bound in need.specifier if bound.operator == ">=")
    assert oldest[canonicalize_name(need.name)] == lowest
