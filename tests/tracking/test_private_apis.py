"""What W&B and Lightning do not promise to keep, and that only releases are admitted that are known to have it."""

import inspect
import tomllib
from itertools import chain

import pytest
from lightning.pytorch.loggers import WandbLogger
from packaging.requirements import Requirement
from wandb import Artifact
from wandb.sdk import wandb_setup
from wandb.sdk.artifacts.artifact_manifest_entry import ArtifactManifestEntry
from wandb.sdk.lib.service.service_connection import ServiceConnection
from wandb.sdk.lib.service.service_process import ServiceProcess
from wandb.sdk.wandb_run import Run

from golden_noise.cli.conf import CONF


def test_an_artifact_can_be_used_offline():
    parameters = inspect.signature(Run._log_artifact).parameters
    assert {"is_user_created", "use_after_commit"} <= set(parameters)


def test_a_file_can_be_referenced_by_a_known_digest():
    artifact = Artifact("pairs", "dataset")
    entry = {"path": "a.tar", "digest": "0123", "ref": "file:///a.tar", "size": 5}
    artifact.manifest.add_entry(ArtifactManifestEntry.model_validate(entry))
    assert artifact.manifest.entries["a.tar"].digest == "0123"


def test_the_option_that_wandb_warns_of_can_be_taken_from_its_logger(tmp_path):
    assert "anonymous" in WandbLogger(save_dir=tmp_path, offline=True)._wandb_init


def test_wandbs_process_can_be_asked_whether_it_lives():
    assert hasattr(wandb_setup.singleton(), "_connection")
    started = inspect.signature(ServiceConnection).parameters, inspect.signature(ServiceProcess).parameters
    assert "proc" in started[0] and "process" in started[1]
    assert "self._proc = proc" in inspect.getsource(ServiceConnection.__init__)
    assert "self._process = process" in inspect.getsource(ServiceProcess.__init__)


@pytest.mark.parametrize(("library", "next_release"), [("wandb", "0.32.0"), ("lightning", "2.7.0")])
def test_releases_that_may_lack_these_are_not_admitted(library, next_release):
    project = tomllib.loads((CONF.parent / "pyproject.toml").read_text("utf-8"))["project"]
    needs = map(Requirement, chain(project["dependencies"], *project["optional-dependencies"].values()))
    bounds = next(need.specifier for need in needs if need.name == library)
    assert next_release not in bounds
