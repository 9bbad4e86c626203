"""Which requests reach the server."""

import pytest

from golden_noise.app.guard import refusal


def answer(method, path, length=b"100"):
    return refusal({"method": method, "path": path, "headers": [(b"content-length", length)]})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", path) for path in ("/", "/config", "/theme.css", "/assets/index.js", "/static/img/logo.svg")),
        *(("GET", f"/gradio_api/{path}") for path in ("queue/data", "heartbeat/abc", "file=/tmp/x/y.png")),
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
        *(("GET", path) for path in ("/monitoring", "/docs", "/openapi.json", "/login_check", "/svelte/x")),
        *((method, "/") for method in ("POST", "PUT", "DELETE", "PATCH")),
    ],
)
def test_nothing_else_does(method, path):
    assert answer(method, path) == 403


@pytest.mark.parametrize("length", [b"20001", b"", b"-1", b"1e3", b"9" * 50])
def test_a_flood_is_refused(length):
    assert answer("POST", "/gradio_api/queue/join", length) == 413
