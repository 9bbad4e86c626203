"""A real S3 server (moto's), and a proxy in front of it that spoils what a test tells it to."""

import contextlib
import http.client
import http.server
import os
import re
import signal
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import fsspec
import pytest

from golden_noise.pairs import transfer

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
Answer = tuple[int, dict[str, str], bytes]
#: Of requests of the tests' own: this server does not check who signed.
SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request"}
STALL = 1.5  # seconds, more than the client waits for


@dataclass
class Fault:
    """What happens to the first `times` requests that match: `METHOD PATH`."""

    kind: Literal["", "refuse", "cut", "truncate", "stall", "slow_down", "kill", "kill_after"]
    request: str
    times: int = 1
    victim: int = 0  # the process to kill, once it is known

    def kill(self) -> None:
        while not self.victim:
            time.sleep(0.001)
        os.kill(self.victim, signal.SIGKILL)


@dataclass
class Proxy:
    """The server at `url`, which clients see; `requests` holds `METHOD PATH` of each that it got."""

    server: tuple[str, int]
    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    changed: Callable[[], object] = lambda: None  # called after every request that changes something
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next_fault(self, request: str) -> Fault | None:
        with self.lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.times and re.search(fault.request, request):
                    fault.times -= 1
                    return fault
        return None

    def ask(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        """What the server itself answers."""
        server = http.client.HTTPConnection(*self.server, timeout=60)
        server.request(method, path, body, dict(headers or SIGNED))
        answer = server.getresponse()
        content = answer.read()
        server.close()
        hops = ("connection", "transfer-encoding", "date", "server")
        return answer.status, {name: value for name, value in answer.getheaders() if name.lower() not in hops}, content

    def count(self, request: str) -> int:
        return sum(bool(re.search(request, each)) for each in self.requests)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.proxy.next_fault(f"{self.command} {urllib.parse.unquote(self.path)}")
        kind = fault.kind if fault else ""
        if kind == "kill":
            fault.kill()
        if kind == "stall":
            time.sleep(STALL)
        if kind in ("refuse", "kill"):
            self.close_connection = True
        elif kind == "slow_down":
            self.answer(503, {"Content-Type": "application/xml"}, SLOW_DOWN)
        else:
            answer = self.proxy.ask(self.command, self.path, body, dict(self.headers.items()))
            if self.command not in ("GET", "HEAD"):
                self.proxy.changed()
            if kind == "kill_after":
                fault.kill()
            self.answer(*answer, kind)

    def answer(self, status: int, headers: dict[str, str], content: bytes, fault: str = "") -> None:
        sent = content[: len(content) // 2] if fault in ("cut", "truncate") else content
        announced = sent if fault == "truncate" else content
        headers = {name: value for name, value in headers.items() if name.lower() != "content-length"} | {
            "Content-Length": self.length(headers) if self.command == "HEAD" else str(len(announced))
        }
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(sent)
        self.close_connection = fault in ("cut", "truncate")

    @staticmethod
    def length(headers: dict[str, str]) -> str:
        return next((value for name, value in headers.items() if name.lower() == "content-length"), "0")

    def log_message(self, *arguments: object) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # of a client that was killed
            super().handle()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward


@contextlib.contextmanager
def proxy_to(server: tuple[str, int]) -> Iterator[Proxy]:
    proxy = Proxy(server)
    handler = type("ProxyHandler", (Handler,), {"proxy": proxy})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as front:
        threading.Thread(target=front.serve_forever, args=(0.01,), daemon=True).start()
        proxy.url = f"http://127.0.0.1:{front.server_port}"
        yield proxy
        front.shutdown()


@pytest.fixture(scope="session")
def s3_proxy() -> Iterator[Proxy]:
    from moto.server import ThreadedMotoServer  # imports for a second

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    with proxy_to(server.get_host_and_port()) as proxy:
        proxy.ask("GET", "/")  # the server imports more for its first answer
        yield proxy
    server.stop()


@pytest.fixture
def s3(s3_proxy, monkeypatch) -> Iterator[Proxy]:
    """The proxy without faults, an empty bucket `pairs`, and tries that follow after milliseconds."""
    import s3fs

    s3_proxy.faults, s3_proxy.requests, s3_proxy.changed = [], [], lambda: None
    for name, value in {
        "AWS_ENDPOINT_URL": s3_proxy.url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(transfer, "WAIT", 0.01)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    bucket = s3fs.S3FileSystem()
    bucket.mkdir("pairs")
    yield s3_proxy
    s3_proxy.faults, s3_proxy.changed = [], lambda: None
    bucket.invalidate_cache()
    bucket.rm("pairs", recursive=True)


@pytest.fixture
def impatient(s3, monkeypatch) -> Callable[[], None]:
    """Makes clients that wait less than a stall; a machine that is busy may need longer for anything else."""
    import s3fs

    def begin() -> None:
        monkeypatch.setattr(s3fs.S3FileSystem, "read_timeout", STALL / 3)
        s3fs.S3FileSystem.clear_instance_cache()

    return begin


def put(folder: Path, url: str) -> None:
    """Upload the files of a folder."""
    system, path = fsspec.url_to_fs(url)
    for file in folder.glob("[!.]*"):
        system.put_file(str(file), f"{path}/{file.name}")
