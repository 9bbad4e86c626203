"""Which requests reach the server."""

import pytest

from golden_noise.app.guard import refusal


def answer(method, path, length=b"100", kind=b"application/json"):
    """The status that refuses a request; None if it may pass."""
    path, _, query = path.partition("?")
    headers = [(b"content-length", length), (b"content-type", kind)]
    scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": headers}
    return (refusal(scope) or [None])[0]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", path) for path in ("/", "/config", "/theme.css", "/assets/index.js", "/static/img/logo.svg")),
        *(
            ("GET", f"/gradio_api/{path}")
            for path in ("queue/data?session_hash=a1", "heartbeat/abc", "file=/tmp/x/y.png")
        ),
        *(("POST", f"/gradio_api/{path}") for path in ("queue/join", "queue/join/", "run/predict", "cancel")),
    ],
)
def test_what_the_page_needs_passes(method, path):
    assert answer(method, path) is None


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("POST", f"/gradio_api/{path}") for path in ("upload", "upload/", "call/draw", "api/draw", "vibe-edit")),
        *(("GET", f"/gradio_api/{path}") for path in ("proxy=https://a.test", "file=https://a.test/x", "runs", "user")),
        *(
            ("GET", f"/gradio_api/{path}")
            for path in ("queue/data", "heartbeat/a b", f"queue/data?session_hash={65 * 'a'}")
        ),
        *(("GET", path) for path in ("/monitoring", "/docs", "/openapi.json", "/login_check", "/svelte/x")),
        *((method, "/") for method in ("POST", "PUT", "DELETE", "PATCH")),
    ],
)
def test_nothing_else_does(method, path):
    assert answer(method, path) == 403


@pytest.mark.parametrize("length", [b"20001", b"", b"-1", b"1e3", b"9" * 50])
def test_a_flood_is_refused(length):
    assert answer("POST", "/gradio_api/queue/join", length) == 413


@pytest.mark.parametrize("kind", [b"", b"text/plain", b"application/x-www-form-urlencoded", b"text/application/json"])
def test_a_form_of_another_page_is_refused(kind):
    assert answer("POST", "/gradio_api/queue/join", kind=kind) == 415
