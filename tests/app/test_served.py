"""Strangers' requests to the app as it is served."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from golden_noise.app import visitors
from golden_noise.app.guard import MOST_AT_ONCE
from golden_noise.app.server import serving
from golden_noise.app.visitors import MOST_STOPS, Visitors
from golden_noise.cli.conf import CONF

VALUES = ["two red triangles", 3, 2, 1.0, "bundled", 1.0, 1.0, []]


@pytest.fixture(scope="module")
def page(settings):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(visitors, "PATIENCE", 0.5)
        patch.setenv("GRADIO_TEMP_DIR", "")
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        with serving(settings, "127.0.0.1", None) as (page, _):
            yield page


@pytest.fixture
def ask(page):
    """Sends a request; returns its status and its answer."""

    def asked(method, path, body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", page.server_port, timeout=20)
        sent = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, sent, {"Content-Type": "application/json"} | headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    return asked


@pytest.fixture
def click(page, ask):
    """Clicks: posts what the page would; returns the status and the answer."""

    def clicked(name, data, session="abc", **more):
        index, function = next((index, function) for index, function in page.fns.items() if function.name == name)
        path = "queue/join" if function.queue else "run/predict"
        return ask("POST", f"/gradio_api/{path}", {"fn_index": index, "data": data, "session_hash": session} | more)

    return clicked


def answers(ask, session="abc"):
    """What the stream of a session says until it is closed."""
    status, text = ask("GET", f"/gradio_api/queue/data?session_hash={session}")
    assert status == 200
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line]


def test_who_listens_gets_pictures(click, ask):
    assert click("draw", VALUES)[0] == 200
    last = [message for message in answers(ask) if message["msg"] == "process_completed"][-1]
    assert last["success"] and "golden-noise generate" in json.dumps(last["output"])


def test_what_nobody_listens_to_is_not_drawn(page, click, ask):
    drawn, before = page.fns[2].fn, page._queue.process_time_per_fn[page.fns[2]].count
    assert drawn.__name__ == "draw"
    codes = [click("draw", VALUES, f"flood{number}")[0] for number in range(20)]
    assert codes == 20 * [200]
    start = time.monotonic()
    while page._queue.event_ids_to_events:
        assert time.monotonic() < start + 15
        time.sleep(0.1)
    assert page._queue.process_time_per_fn[page.fns[2]].count == before
    assert "Nobody waits" in json.dumps(answers(ask, "flood0"))


def test_a_session_waits_for_a_few_answers(click):
    codes = [click("draw", VALUES, "greedy") for _ in range(MOST_AT_ONCE + 1)]
    assert [code for code, _ in codes] == [*MOST_AT_ONCE * [200], 429]
    assert "You wait for 3 answers already" in codes[-1][1]


def changed(position, value):
    return [*VALUES[:position], value, *VALUES[position + 1 :]]


@pytest.mark.parametrize("wrong", [True, [], ["é"], {}, {"a": 1}, None, "x", 1e300, 10**30])
@pytest.mark.parametrize("position", range(len(VALUES)))
def test_a_value_of_a_wrong_type_is_answered_in_a_line(click, ask, capfd, position, wrong):
    if (position, wrong) in [(0, "x"), (7, [])]:
        pytest.skip("this one is right")
    capfd.readouterr()
    session = f"wrong{position}"
    assert click("draw", changed(position, wrong), session)[0] == 200
    last = [message for message in answers(ask, session) if message["msg"] == "process_completed"][-1]
    assert not last["success"] and isinstance(last["output"]["error"], str), last
    assert "\n" not in last["output"]["error"] and "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("wrong", [True, [], {}, None, "x", 7])
def test_a_search_that_is_none_is_answered_in_a_line(click, capfd, wrong):
    status, answer = click("_length", [wrong])
    assert status == 500 and json.loads(answer)["error"].startswith("The search must be one of")
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        *(({"fn_index": index}, "fn_index must be one of the page") for index in (999, -1, True, None, "2", [], 0, 1)),
        *(
            ({"data": data}, "data must be a list of 8 values")
            for data in ([], VALUES[1:], {}, None, "x", [*VALUES, 1])
        ),
        *(({"session_hash": name}, "session_hash must be") for name in ("", "é", "a" * 65, None, 7, ["a"], "a/b")),
        ({"batched": True}, "data must be a list"),
        *(({"trigger_id": number}, "This is no JSON object") for number in (float("nan"), float("inf"))),
        ({"data": changed(1, float("nan"))}, "This is no JSON object"),
        ({"data": changed(0, "\ud800")}, "This is no JSON object"),
    ],
)
@pytest.mark.parametrize("path", ["queue/join", "run/predict", "queue/join/"])
def test_nonsense_is_refused_in_a_line(ask, capfd, changes, words, path):
    body = {"fn_index": 2, "data": VALUES, "session_hash": "abc"} | changes
    status, answer = ask("POST", f"/gradio_api/{path}", body)
    assert status == 400 and words in json.loads(answer)["detail"]
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("body", [b"", b"[", b"[]", b"null", b"\xff", b"[" * 9_000, b'{"a": 1e999}', b"9" * 9_000])
@pytest.mark.parametrize("path", ["queue/join", "cancel", "reset"])
def test_what_is_no_json_object_is_refused(ask, capfd, body, path):
    assert ask("POST", f"/gradio_api/{path}", body) == (400, '{"detail":"This is no JSON object."}')
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        *(({"Host": host}, 200) for host in ("localhost", "127.0.0.1:7860", "LOCALHOST:1", "[::1]:7860")),
        *(
            ({"Host": host}, 403)
            for host in ("evil.test", "localhost.evil.test", "127.0.0.1.evil.test", "", "[", "::1")
        ),
        ({"Host": "localhost:7860", "Origin": "http://localhost:7860"}, 200),
        *(
            ({"Host": "localhost:7860", "Origin": origin}, 403)
            for origin in ("http://evil.test", "null", "http://localhost:9", "http://[", "")
        ),
    ],
)
def test_a_local_app_answers_its_own_page_alone(ask, headers, status):
    assert ask("GET", "/config", **headers)[0] == status


def test_a_session_that_comes_back_keeps_its_stop_and_the_oldest_is_dropped():
    known = Visitors()
    for number in range(MOST_STOPS + 5):
        known.begin(f"s{number}")
    assert len(known._stops) == MOST_STOPS
    known.stop_of("s5").set()
    assert known.stop_of("s5").is_set() and not known.stop_of("s0").is_set()
    known.stop_of("s0").set()
    assert len(known._stops) == MOST_STOPS  # asking makes none


@pytest.mark.slow
def test_the_end_of_the_process_leaves_nothing(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "golden_noise", "app", "device=cpu", "--port", port, "paths.outputs=nowhere"]
    environment = os.environ | {"PYTHONPATH": str(CONF.parent), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as app:
        assert "golden-noise app: " in app.stdout.readline()
        assert [*tmp_path.glob("golden-noise-app-*")]
        app.send_signal(signal.SIGTERM)
        assert app.wait(30) == 0
    assert not [*tmp_path.glob("golden-noise-app-*")]
