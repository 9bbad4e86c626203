"""Keeps requests from the server that the page itself never makes: uploads, foreign addresses, nonsense, and floods."""

import json
import math
import re
import time
from contextlib import nullcontext
from typing import Any
from urllib.parse import parse_qs, urlsplit

import gradio as gr
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from golden_noise.app.visitors import Visitors

API = "/gradio_api"
JOIN, STREAM, BEAT = f"{API}/queue/join", f"{API}/queue/data", f"{API}/heartbeat/"
READ = ("/assets/", "/static/", f"{API}/file=", BEAT)
READ_EXACTLY = (
    *("/", "/config", "/theme.css", "/favicon.ico", "/robots.txt", "/manifest.json"),
    *(STREAM, *(f"{API}/{name}" for name in ("startup-events", "app_id", "info"))),
)
CLICKS = (JOIN, f"{API}/run/predict")
WRITE = (*CLICKS, f"{API}/cancel", f"{API}/reset")
MOST_BYTES = 20_000  # of what the page sends at once; a prompt has some hundreds
MOST_AT_ONCE = 3  # a visitor's clicks on Draw, Draw all and Search
SESSION = re.compile(r"[A-Za-z0-9_-]{1,64}")
LOOPBACK = ("localhost", "127.0.0.1", "::1")
Refusal = tuple[int, str]


class Guard:
    """ASGI middleware that refuses in one line what the page does not need, and notes who listens for answers.

    Args:
        page: the one that is served.
        local: it is for this machine alone, so other names than LOOPBACK are those of a page that attacks it.
    """

    def __init__(self, app: ASGIApp, page: gr.Blocks, visitors: Visitors, local: bool):
        self.app, self.page, self.visitors, self.local = app, page, visitors, local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        refused = (foreign(scope) if self.local else None) or refusal(scope)
        if not refused and scope["method"] == "POST":
            body = await _read(receive)
            receive = _again(body, receive)
            scope.setdefault("state", {})["asked"] = time.monotonic()
            refused = self._mistake(_path(scope), body)
        if refused:
            status, line = refused
            return await JSONResponse({"detail": line}, status)(scope, receive, send)
        stream = _path(scope) == STREAM and scope["method"] == "GET"
        with self.visitors.listening(_session(scope)) if stream else nullcontext():
            await self.app(scope, receive, send)

    def _mistake(self, path: str, body: bytes) -> Refusal | None:
        """What is wrong with the body of a request; the values of a click are looked at where they are used."""
        given = parsed(body)
        if given is None:
            return 400, "This is no JSON object."
        if path not in CLICKS:
            return None
        session, index, values = given.get("session_hash"), given.get("fn_index"), given.get("data")
        if not isinstance(session, str) or not SESSION.fullmatch(session):
            return 400, "session_hash must be 1 to 64 letters and digits."
        click = self.page.fns.get(index) if type(index) is int else None  # not True, which is 1
        if click is None or click.fn is None:
            return 400, "fn_index must be one of the page: reload it."
        if not isinstance(values, list) or len(values) != len(click.inputs) or given.get("batched"):
            return 400, f"data must be a list of {len(click.inputs)} values."
        waiting = [event for event in self.page._queue.event_ids_to_events.values() if event.session_hash == session]
        if path == JOIN and len(waiting) >= MOST_AT_ONCE:
            return 429, f"You wait for {MOST_AT_ONCE} answers already: click again when one is there."
        return None


def refusal(scope: Scope) -> Refusal | None:
    """The status and the line that refuse a request for its head; None: it may pass."""
    path, method, headers = _path(scope), scope["method"], Headers(scope=scope)
    nothing = 403, "not here"
    if method == "POST":
        if path not in WRITE:
            return nothing
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return 415, "This is no JSON object."  # and a form of a foreign page cannot send any
        length = headers.get("content-length", "")
        fits = re.fullmatch("[0-9]{1,9}", length) and int(length) <= MOST_BYTES
        return None if fits else (413, f"A request has at most {MOST_BYTES:,} bytes.")
    reads = path in READ_EXACTLY or path.startswith(READ)
    remote = path.startswith(f"{API}/file=") and "://" in path  # Gradio would fetch it
    if method not in ("GET", "HEAD") or not reads or remote:
        return nothing
    named = path == STREAM or path.startswith(BEAT)
    return nothing if named and not SESSION.fullmatch(_session(scope)) else None


def foreign(scope: Scope) -> Refusal | None:
    """Refuses what does not come from this machine's own page: another name of the server, or another page's request.

    A page of the web can point its name at 127.0.0.1 (DNS rebinding), and send requests to other addresses.
    """
    headers = Headers(scope=scope)
    host, origin = headers.get("host", ""), headers.get("origin")
    try:
        known = urlsplit(f"//{host}").hostname in LOOPBACK
        own = origin is None or urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        known = own = False
    return None if known and own else (403, f"This app answers at {', '.join(LOOPBACK)} only: see --host.")


def parsed(body: bytes) -> dict[str, Any] | None:
    """A JSON object with finite numbers and proper text; None if it is none."""
    try:
        given = json.loads(body, parse_constant=_finite, parse_float=_finite)
        json.dumps(given, ensure_ascii=False).encode()  # halves of letters cannot be written
    except (ValueError, RecursionError):
        return None
    return given if isinstance(given, dict) else None


def _finite(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise ValueError(digits)
    return number


def _path(scope: Scope) -> str:
    return str(scope["path"]).rstrip("/") or "/"


def _session(scope: Scope) -> str:
    """The session that a stream or a heartbeat names."""
    path = _path(scope)
    if path.startswith(BEAT):
        return path.removeprefix(BEAT)
    return parse_qs(scope.get("query_string", b"").decode("latin-1")).get("session_hash", [""])[-1]


async def _read(receive: Receive) -> bytes:
    """The body, whose length was looked at; a part of it if the visitor left."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _again(body: bytes, receive: Receive) -> Receive:
    """Receives a body that was read once more, and then what follows it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def received() -> Message:
        return messages.pop() if messages else await receive()

    return received
