"""The app on the miniature."""

import pytest

from golden_noise.app.choices import Choice
from golden_noise.app.settings import Settings
from golden_noise.app.studio import Studio


@pytest.fixture(scope="session")
def settings(tmp_path_factory):
    return Settings.of(["device=cpu", f"paths.outputs={tmp_path_factory.mktemp('outputs')}"])


@pytest.fixture(scope="session")
def studio(settings):
    return Studio(settings)


@pytest.fixture
def choose():
    """A choice of a visitor on the miniature, with changes."""

    def chosen(**changes):
        given = {"prompt": "a blue triangle left of a red circle", "seed": 3, "steps": 4, "guidance": 1.0}
        return Choice(**given | {"network": "bundled", "scores": ("strict", "reward")} | changes)

    return chosen
