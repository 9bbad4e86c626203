import http.server
import threading
from pathlib import Path

import huggingface_hub.constants
import pytest

import golden_noise
from golden_noise.errors import UserError
from golden_noise.hub import answers, hub_problem, locate


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
def test_missing_folders_are_named_with_their_option(source, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")  # nobody else's folders
    with pytest.raises(UserError, match="npnet") as error:
        locate(source, "npnet")
    assert source.removeprefix("package:").removeprefix("~/").removeprefix("./") in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture
def online(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def server():
    """URL of a server that refuses everything."""
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_server_that_answers_anything_answers(server, online):
    assert answers(f"http://{server}/")


def test_a_server_that_is_not_there_does_not_answer(online):
    assert not answers("http://127.0.0.1:9/")
    assert not answers("https://no-such-host.invalid/")


def test_only_the_hub_has_a_problem_without_network(tmp_path):
    assert hub_problem(str(tmp_path)) is None
    assert hub_problem("ORG/NAME") == "HF_HUB_OFFLINE is set"
