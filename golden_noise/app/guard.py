"""Keeps requests from the server that the page itself never makes: uploads, addresses to fetch, and floods of text."""

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

API = "/gradio_api"
READ = ("/assets/", "/static/", f"{API}/file=", f"{API}/heartbeat/")
READ_EXACTLY = (
    *("/", "/config", "/theme.css", "/favicon.ico", "/robots.txt", "/manifest.json"),
    *(f"{API}/{name}" for name in ("queue/data", "startup-events", "app_id", "info")),
)
WRITE = tuple(f"{API}/{name}" for name in ("queue/join", "run/predict", "cancel", "reset"))
MOST_BYTES = 20_000  # of what the page sends at once; a prompt has some hundreds


class Guard:
    """ASGI middleware that answers 403 to what the page does not need, and 413 to bodies that are too long."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        refused = refusal(scope) if scope["type"] == "http" else None
        if refused is None:
            await self.app(scope, receive, send)
        else:
            await PlainTextResponse("not here", status_code=refused)(scope, receive, send)


def refusal(scope: Scope) -> int | None:
    """The status that refuses a request; None: it may pass."""
    path, method = scope["path"].rstrip("/") or "/", scope["method"]
    if method == "POST":
        length = dict(scope["headers"]).get(b"content-length", b"")
        if path not in WRITE:
            return 403
        return None if length.isdigit() and int(length) <= MOST_BYTES else 413
    reads = path in READ_EXACTLY or path.startswith(READ)
    remote = path.startswith(f"{API}/file=") and "://" in path  # Gradio would fetch it
    return None if method in ("GET", "HEAD") and reads and not remote else 403
