import hashlib
import http.server
import multiprocessing
import os
import shlex
import signal
import threading
import time
from functools import partial
from pathlib import Path

import fsspec
import pytest
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from golden_noise.errors import UserError
from golden_noise.pairs import transfer
from golden_noise.pairs.dataset import NoisePairDataset
from golden_noise.pairs.loader import NoisePairLoader
from golden_noise.pairs.source import ShardSource
from tests.object_storage import Fault, proxy_to

from .factory import LATENT_SHAPE, collect, rewrite_entry

SIZES = [3, 2, 4]


@pytest.fixture
def pairs(tmp_path) -> Path:
    folder = tmp_path / "pairs"
    collect(folder, SIZES)
    return folder


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files, a little slowly, and counts them."""

    def do_GET(self):
        self.server.requests.append(self.path)
        super().do_GET()

    def copyfile(self, source, outputfile):
        while chunk := source.read(4096):
            time.sleep(self.server.pause)
            outputfile.write(chunk)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(pairs):
    handler = partial(Handler, directory=str(pairs.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.requests, server.pause = [], 0.0
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def url_of(server) -> str:
    return f"http://127.0.0.1:{server.server_port}/pairs"


def contents(source: ShardSource) -> list[bytes]:
    read = []
    for shard in source.load_index().shards:
        with source.open(shard) as file:
            read.append(os.pread(file.fileno(), 1 << 30, 0))
    return read


def expected(folder: Path, shards=(0, 1, 2)) -> list[bytes]:
    return [(folder / f"pairs-00000{shard}.tar").read_bytes() for shard in shards]


@pytest.mark.parametrize(
    ("form", "shards"),
    [
        ("{folder}", [0, 1, 2]),
        ("{folder}/", [0, 1, 2]),
        ("file://{folder}", [0, 1, 2]),
        ("{folder}/pairs-{{000000..000001}}.tar", [0, 1]),
        ("{folder}/pairs-00000{{2,0}}.tar", [2, 0]),
        ("{url}", [0, 1, 2]),
        ("{url}/pairs-{{000001..000002}}.tar", [1, 2]),
        ("{url}/pairs-{{000001..000002}}.tar?token=1", [1, 2]),
        ("pipe:cat {quoted}/pairs-{{000000..000002}}.tar", [0, 1, 2]),
        ("pipe:cat {quoted}/pairs-000001.tar | cat", [1]),
    ],
)
@pytest.mark.parametrize("cached", [False, True])
def test_every_form_gives_the_same_shards(pairs, server, tmp_path, form, shards, cached):
    text = form.format(folder=pairs, url=url_of(server), quoted=shlex.quote(str(pairs)))
    source = ShardSource(text, tmp_path / "cache" if cached else None)
    assert contents(source) == expected(pairs, shards)
    assert source.is_url == (form[0] != "f" and not form.startswith("{folder"))


def test_a_cached_shard_is_fetched_once(pairs, server, tmp_path):
    for _ in range(2):
        source = ShardSource(url_of(server), tmp_path / "cache")
        assert contents(source) == contents(source) == expected(pairs)
    assert sum(".tar" in request for request in server.requests) == 3


def test_a_damaged_file_in_the_cache_is_fetched_again(pairs, server, tmp_path):
    cache = tmp_path / "cache"
    contents(ShardSource(url_of(server), cache))
    first, second, third = sorted(cache.glob("*.tar"))
    content = bytearray(first.read_bytes())
    content[1000] ^= 1
    first.write_bytes(content)
    os.truncate(second, 100)
    third.unlink()
    assert contents(ShardSource(url_of(server), cache)) == expected(pairs)


def test_processes_that_need_a_shard_at_once_fetch_it_once(pairs, server, tmp_path):
    server.pause = 0.02
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=read_cached, args=(url_of(server), tmp_path, pairs)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert sum(".tar" in request for request in server.requests) == 3


def read_cached(url, folder, pairs):
    assert contents(ShardSource(url, folder / "cache")) == expected(pairs)


def test_a_killed_download_leaves_nothing_bad(pairs, server, tmp_path):
    """Killed at ten moments of the first download; then the cache is filled as if nothing had happened."""
    server.pause = 0.03
    context = multiprocessing.get_context("fork")
    for moment in range(10):
        process = context.Process(target=read_cached, args=(url_of(server), tmp_path, pairs))
        process.start()
        time.sleep(0.02 * moment)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        for path in (tmp_path / "cache").glob("*.tar"):
            assert path.read_bytes() in expected(pairs)
    server.pause = 0.0
    assert contents(ShardSource(url_of(server), tmp_path / "cache")) == expected(pairs)


def test_what_is_fetched_must_be_what_the_index_says(pairs, server, tmp_path):
    path = pairs / "pairs-000001.tar"
    good = path.read_bytes()
    for bad, problem in (
        (good[:5000], "5000 bytes instead of"),
        (good[:-1] + b"x", "checksum"),
        (good * 2, "bytes inst"),
    ):
        path.write_bytes(bad)
        for cache in (None, tmp_path / "cache"):
            with pytest.raises(UserError, match=rf"shard http://.*/pairs-000001\.tar is damaged \(.*{problem}"):
                contents(ShardSource(url_of(server), cache))
    assert len(list((tmp_path / "cache").glob("*.tar"))) == 1  # the first shard


def test_a_wrong_address_is_one_line(pairs, server, monkeypatch):
    monkeypatch.setattr(transfer, "WAIT", 0.001)
    with pytest.raises(
        UserError, match=r"^http://127\S*/nowhere/index\.json cannot be fetched \(.*: 404, .*\): check the"
    ):
        ShardSource(f"{url_of(server)}/nowhere").load_index()
    with pytest.raises(
        UserError, match=r"^http://127\.0\.0\.1:9/index\.json cannot be fetched in 8 tries .*onnect.*\): rep"
    ):
        ShardSource("http://127.0.0.1:9").load_index()
    with pytest.raises(UserError, match=r"pipe:cat /nowhere/index\.json cannot be fetched .*exit code 1\)"):
        ShardSource("pipe:cat /nowhere/pairs-000000.tar").load_index()
    with pytest.raises(
        UserError, match=r"^http://127\S*pairs-000000\.tar cannot be fetched \(.*: 404, .*\): check the"
    ):
        (pairs / "pairs-000000.tar").unlink()
        contents(ShardSource(url_of(server)))
    with pytest.raises(UserError, match=r"nonsense://x/index\.json cannot be fetched .*Protocol not known: nonsense"):
        ShardSource("nonsense://x").load_index()


def test_a_missing_package_is_named():
    with pytest.raises(UserError, match=r"abfs://bucket/index\.json needs a package .*adlfs"):
        ShardSource("abfs://bucket").load_index()


@pytest.mark.parametrize("kind", ["refuse", "cut", "stall", "slow_down"])
def test_a_web_server_that_fails_is_asked_again(pairs, server, monkeypatch, kind):
    """This one gives no ranges: what has arrived is skipped."""
    monkeypatch.setattr(transfer, "WAIT", 0.001)
    monkeypatch.setattr(transfer, "SILENCE", 0.3)
    monkeypatch.setattr(transfer, "CHUNK", 4096)
    with proxy_to(("127.0.0.1", server.server_port)) as proxy:
        proxy.faults = [Fault(kind, "GET .*(index|000001)", 2)]
        assert contents(ShardSource(f"{proxy.url}/pairs")) == expected(pairs)
        assert proxy.faults[0].times == 0


def test_file_systems_of_fsspec_are_read(pairs):
    memory = fsspec.filesystem("memory")
    memory.put(str(pairs), "/pairs", recursive=True)
    fsspec.register_implementation("objects", Objects, clobber=True)
    for url in ("memory://pairs", "memory://pairs/pairs-{000000..000002}.tar", f"objects://{pairs}"):
        assert contents(ShardSource(url)) == expected(pairs)


class Objects(AbstractFileSystem):
    """Reads ranges of files, by the buffered files that those of s3 and gs are made of."""

    protocol = "objects"

    def info(self, path, **kwargs):
        return {"name": path, "size": os.path.getsize(path), "type": "file"}

    def _open(self, path, mode="rb", block_size=None, **kwargs):
        return Ranges(self, path, mode, block_size=self.blocksize if block_size is None else block_size)


class Ranges(AbstractBufferedFile):
    def _fetch_range(self, start, end):
        return Path(self.path).read_bytes()[start:end]


def test_workers_that_are_forked_fetch_what_this_process_fetches_too(pairs, server):
    """fsspec reads http in a thread, which a forked process does not have."""
    source = ShardSource(url_of(server))
    assert contents(source) == expected(pairs)
    dataset = NoisePairDataset(source, source.load_index().shards, {"noise": LATENT_SHAPE})
    stream = NoisePairLoader(dataset, "train", 0.0, 2, num_workers=2)
    assert [batch["key"] for batch in stream] != []


def test_mistakes_in_data_dir_are_one_line(pairs):
    with pytest.raises(UserError, match="names no shard: write it like pipe:cat"):
        ShardSource("pipe:cat /somewhere")
    with pytest.raises(UserError, match="more than one folder"):
        ShardSource("/{a,b}/pairs-000000.tar")
    with pytest.raises(UserError, match="cannot be expanded"):
        ShardSource("/a/pairs-{000000.tar")
    with pytest.raises(UserError, match=r"does not list pairs-000003\.tar"):
        ShardSource(f"{pairs}/pairs-{{000000..000005}}.tar").load_index()


def test_an_index_cannot_run_a_command(pairs, tmp_path):
    rewrite_entry(pairs, name=f"x; touch {tmp_path}/run; pairs-000000.tar")
    with pytest.raises(UserError, match=r"index\.json is damaged .*name: String should match"):
        contents(ShardSource(f"pipe:cat {pairs}/pairs-000000.tar"))
    assert not (tmp_path / "run").exists()


def test_an_unwritable_cache_is_one_line(pairs, server, tmp_path):
    (tmp_path / "cache").touch()
    with pytest.raises(UserError, match=r"data\.cache=.*/cache cannot be written"):
        contents(ShardSource(url_of(server), tmp_path / "cache"))


def test_a_local_shard_is_hashed_again_only_when_it_changes(pairs, monkeypatch):
    hashed, digest = [], hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, name: hashed.append(file.name) or digest(file, name))
    source = ShardSource(pairs)
    assert contents(source) == contents(source)
    assert len(hashed) == 3
    os.utime(pairs / "pairs-000000.tar", ns=(0, 0))
    contents(source)
    assert len(hashed) == 4
