from pathlib import Path

import pytest

import golden_noise
from golden_noise.errors import UserError
from golden_noise.weights import locate


def test_existing_folder_is_taken(tmp_path):
    assert locate(str(tmp_path), "npnet") == str(tmp_path)


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert locate("~/model", "npnet") == str(tmp_path / "model")


def test_package_prefix_names_a_folder_beside_the_code():
    assert Path(locate("package:shapes", "npnet")) == Path(golden_noise.__file__).parent / "shapes"


def test_hub_ids_pass():
    assert locate("stabilityai/stable-diffusion-xl-base-1.0", "npnet") == "stabilityai/stable-diffusion-xl-base-1.0"


def test_an_existing_folder_wins_over_a_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org/name").mkdir(parents=True)
    assert Path(locate("org/name", "npnet")).is_dir()


@pytest.mark.parametrize(
    "source", ["./org/name", "../x", "/no/such", "~/no-such-folder", "plain", "a/b/c", "package:x/y"]
)
def test_missing_folders_are_named_with_their_option(source):
    with pytest.raises(UserError, match="npnet") as error:
        locate(source, "npnet")
    assert source.removeprefix("package:").removeprefix("~/").removeprefix("./") in str(error.value)
    assert "\n" not in str(error.value)
