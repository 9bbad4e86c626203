"""Object storage that fails: a real S3 server behind a proxy that cuts, stalls, truncates and refuses."""

import multiprocessing
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from s3fs import S3FileSystem

from golden_noise.errors import UserError
from golden_noise.pairs import transfer
from golden_noise.pairs.dataset import NoisePairDataset
from golden_noise.pairs.loader import NoisePairLoader
from golden_noise.pairs.source import ShardSource
from tests.object_storage import Fault, put

from .factory import LATENT_SHAPE, collect

SIZES = [3, 2, 4]
URL = "s3://pairs/a set/Ω"


@pytest.fixture
def pairs(tmp_path, s3):
    collect(tmp_path / "pairs", SIZES)
    put(tmp_path / "pairs", URL)
    s3.requests.clear()
    return tmp_path / "pairs"


def fetched(cache=None, url=URL):
    source, read = ShardSource(url, cache), []
    for shard in source.load_index().shards:
        with source.open(shard) as file:
            file.seek(0)
            read.append(file.read())
    return read


def expected(pairs):
    return [path.read_bytes() for path in sorted(pairs.glob("*.tar"))]


@pytest.mark.parametrize("name", ["index", "pairs-000001"])
@pytest.mark.parametrize("kind", ["refuse", "cut", "truncate", "stall", "slow_down"])
def test_what_a_fault_spoils_is_tried_again(pairs, s3, impatient, tmp_path, capsys, kind, name):
    if kind == "stall":
        impatient()
    s3.faults = [Fault(kind, f"GET .*{name}", 1 if kind == "stall" else 3)]
    assert fetched(tmp_path / "cache") == expected(pairs)
    assert not s3.faults[0].times
    if kind != "truncate":
        assert f"{URL}/{name}" in (said := capsys.readouterr().err) and "next try in 0.0 s (2 of 8)" in said
    before = len(s3.requests)
    assert fetched(tmp_path / "cache") == expected(pairs)  # from the cache
    assert sum(".tar" in request for request in s3.requests[before:]) == 0


def test_a_download_goes_on_where_it_was_cut(pairs, s3, monkeypatch):
    """Cut more often than it may fail in a row: each try brings a half of what is left, then the next chunk."""
    monkeypatch.setattr(transfer, "CHUNK", 4096)
    size = len(expected(pairs)[1])
    assert size > 2 * 4096
    read = transfer.chunks(f"{URL}/pairs-000001.tar")
    content = next(read)
    for _ in range(size // 4096 - 1):
        s3.faults = [Fault("refuse", "GET .*pairs-000001", transfer.TRIES - 1)]
        content += next(read)
    assert content + b"".join(read) == expected(pairs)[1]


@pytest.mark.parametrize("kind", ["refuse", "cut", "slow_down"])
def test_after_eight_tries_one_line_says_what_to_do(pairs, s3, kind, capsys):
    s3.faults = [Fault(kind, "GET .*pairs-000002", 1000)]
    with pytest.raises(UserError) as error:
        fetched()
    text = str(error.value)
    assert text.startswith(f"{URL}/pairs-000002.tar cannot be fetched in 8 tries (") and "\n" not in text
    assert text.endswith("): repeat the command when the server answers, it goes on from here")
    assert ("SlowDown" in text) == (kind == "slow_down")
    assert capsys.readouterr().err.count("next try in") == 7


def test_a_mistake_is_not_tried_again(pairs, s3, monkeypatch, capsys):
    with pytest.raises(UserError, match=r"^s3://pairs/nowhere/index\.json cannot be fetched \(.*: check the address$"):
        fetched(url="s3://pairs/nowhere")
    with pytest.raises(UserError, match=r"^s3://nobucket/x/index\.json cannot be fetched \(.*: check the address$"):
        fetched(url="s3://nobucket/x")
    assert capsys.readouterr().err == ""


def test_a_server_that_speaks_no_tls_is_said_at_once(pairs, s3, monkeypatch, capsys):
    monkeypatch.setenv("AWS_ENDPOINT_URL", os.environ["AWS_ENDPOINT_URL"].replace("http:", "https:"))
    S3FileSystem.clear_instance_cache()
    with pytest.raises(UserError, match=r"cannot be fetched \(.*: check http:// or https://, and the certificate$"):
        fetched()
    assert capsys.readouterr().err == ""


def test_a_proxy_that_truncates_for_good_is_noticed(pairs, s3, capsys):
    """An object that is not the recorded one is fetched once more, and is then an error."""
    put(pairs, URL)
    (pairs / "pairs-000001.tar").write_bytes(expected(pairs)[1][:-512])
    put(pairs, URL)
    with pytest.raises(UserError, match=r"shard s3://.*pairs-000001\.tar is damaged \(\d+ bytes instead of"):
        fetched()
    assert capsys.readouterr().err.count("fetching it again") == 1


def test_processes_share_the_cache_under_faults(pairs, s3, tmp_path):
    """As the ranks of a machine do: each shard is fetched by one of them, whatever happens to the connections."""
    s3.faults = [Fault("cut", "GET .*tar", 2), Fault("refuse", "GET .*tar", 2), Fault("slow_down", "GET .*tar", 2)]
    context = multiprocessing.get_context("fork")
    fetched(tmp_path / "other")  # this process has threads of s3fs when it is forked
    processes = [context.Process(target=check_fetched, args=(tmp_path / "cache", pairs)) for _ in range(3)]
    before = len(s3.requests)
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 3
    assert sum(request.startswith("HEAD") and ".tar" in request for request in s3.requests[before:]) == 3


def check_fetched(cache, pairs):
    assert fetched(cache) == expected(pairs)


def test_forked_workers_fetch_while_storage_fails(pairs, s3, tmp_path):
    source = ShardSource(URL, tmp_path / "cache")
    dataset = NoisePairDataset(source, source.load_index().shards, {"noise": LATENT_SHAPE})
    whole = [batch["key"] for batch in NoisePairLoader(dataset, "train", 0.0, 2)]
    s3.faults = [Fault("cut", "GET .*tar", 2), Fault("slow_down", "GET .*tar", 2)]
    dataset = NoisePairDataset(ShardSource(URL), dataset.shards, {"noise": LATENT_SHAPE})
    assert [batch["key"] for batch in NoisePairLoader(dataset, "train", 0.0, 2, num_workers=2)] == whole


def test_storage_that_stays_away_ends_a_worker_with_one_line(pairs, s3):
    source = ShardSource(URL)
    dataset = NoisePairDataset(source, source.load_index().shards, {"noise": LATENT_SHAPE})
    s3.faults = [Fault("refuse", "pairs-000001", 1000)]
    with pytest.raises(UserError, match=r"pairs-000001\.tar cannot be fetched in 8 tries"):
        list(NoisePairLoader(dataset, "train", 0.0, 2, num_workers=2))


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 503])
def test_a_status_that_passes_is_tried_again_and_another_is_not(monkeypatch, capsys, status):
    monkeypatch.setattr(transfer, "WAIT", 0.0)
    answers = [200, status, status, 410]

    class Server(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(200)

        def do_GET(self):
            self.answer(answers.pop())
            self.wfile.write(b"ok")

        def answer(self, status):
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/index.json"
        with pytest.raises(UserError, match=r"cannot be fetched .*410.*: check the address"):
            transfer.read(url)
        assert transfer.read(url) == b"ok"
        server.shutdown()
    assert capsys.readouterr().err.count("next try") == 2
