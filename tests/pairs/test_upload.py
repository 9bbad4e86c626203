"""Shards go to object storage as they are finished; whatever happens, the remote index lists only what is there."""

import hashlib
import json
import multiprocessing
import os
import time
from urllib.parse import quote

import pytest

from golden_noise.errors import UserError
from golden_noise.pairs import ShardIndex, ShardWriter, Upload, prepare
from golden_noise.pairs import upload as uploading
from golden_noise.pairs.index import INDEX_NAME
from golden_noise.pairs.source import ShardSource
from tests.object_storage import Fault

from .factory import CONFIG, make_pair

FOLDER = "pairs/a set/Ω"
URL = f"s3://{FOLDER}"
UNITS = [3, 2, 4]
CONTEXT = multiprocessing.get_context("fork")


def collect_uploaded(folder, units=UNITS, url=URL, mode="resume"):
    """Like the job: units of so many pairs each, their shards uploaded to a URL."""
    upload = Upload(folder, url)
    prepare(folder, CONFIG, [()] * len(units), mode, upload)
    writer = ShardWriter(folder, CONFIG, upload)
    with writer.taking([""] * len(units)) as taken:
        for unit in taken:
            if shard := writer.collected(unit):
                writer.finish(shard)
            else:
                writer.write(unit, [make_pair(10 * unit + number) for number in range(units[unit])])
    return writer


@pytest.fixture
def remote(s3, monkeypatch):
    """Looks at what is stored; after every request that changes it, it must be a valid set of pairs."""
    monkeypatch.setattr(uploading, "INTERVAL", 0.0)
    remote = Remote(s3)
    s3.changed = remote.check
    yield remote
    assert not remote.broken


class Remote:
    def __init__(self, proxy):
        self.proxy, self.broken, self.states = proxy, [], []

    def get(self, name):
        status, _, content = self.proxy.ask("GET", quote(f"/{FOLDER}/{name}"))
        return content if status == 200 else None

    def shards(self):
        content = self.get(INDEX_NAME)
        return {entry["name"]: entry["sha256"] for entry in json.loads(content)["shards"]} if content else {}

    def check(self):
        listed = self.shards()
        self.states.append(len(listed))
        for name, sha256 in listed.items():
            if hashlib.sha256(self.get(name) or b"").hexdigest() != sha256:
                self.broken.append(f"{name} after {self.proxy.requests[-1]}")

    def equals(self, folder):
        names = [*(path.name for path in folder.glob("*.tar")), INDEX_NAME]
        return all(self.get(name) == (folder / name).read_bytes() for name in names)


def test_shards_are_uploaded_as_they_are_finished_and_then_listed(remote, s3, tmp_path):
    collect_uploaded(tmp_path / "pairs")
    assert remote.equals(tmp_path / "pairs") and remote.states == [0, 0, 1, 1, 2, 2, 3]
    assert sum(shard.samples for shard in ShardSource(URL).load_index().shards) == sum(UNITS)
    s3.requests.clear()
    collect_uploaded(tmp_path / "pairs")  # there is nothing to do
    assert s3.count("^PUT") == 0


def test_a_training_elsewhere_begins_with_what_is_there(remote, s3, tmp_path):
    seen = []

    def read():
        remote.check()
        if remote.shards():
            seen.append(len(remote.shards()))

    s3.changed = read
    collect_uploaded(tmp_path / "pairs")
    assert seen[:2] == [1, 1] and seen[-1] == 3


def test_when_shards_come_fast_the_index_follows_at_intervals(remote, s3, tmp_path, monkeypatch):
    monkeypatch.setattr(uploading, "INTERVAL", 1000.0)
    collect_uploaded(tmp_path / "pairs", [1] * 6)
    assert remote.equals(tmp_path / "pairs")
    assert s3.count("^PUT .*index") == 2  # with the first shard and at the end


@pytest.mark.parametrize("kind", ["refuse", "slow_down", "stall", "cut"])
def test_what_a_fault_spoils_is_uploaded_again(remote, s3, impatient, tmp_path, capsys, kind):
    if kind == "stall":
        impatient()
    s3.faults = [Fault(kind, f"PUT .*{name}", 2) for name in ("collection", "000001", "index")]
    collect_uploaded(tmp_path / "pairs")
    assert remote.equals(tmp_path / "pairs")
    if kind != "cut":  # an answer without content cannot be cut
        assert f"{URL}/pairs-000001.tar was not written" in capsys.readouterr().err


def test_storage_that_stays_away_is_one_line_and_nothing_is_collected_twice(remote, s3, tmp_path):
    s3.faults = [Fault("slow_down", "PUT .*000001", 8)]
    with pytest.raises(UserError, match=r"^s3://.*/pairs-000001\.tar cannot be written in 8 tries \(.*SlowDown.*"):
        collect_uploaded(tmp_path / "pairs")
    stamps = [path.stat().st_mtime_ns for path in sorted((tmp_path / "pairs").glob("*.tar"))]
    assert len(stamps) == 2 and list(remote.shards()) == ["pairs-000000.tar"]
    collect_uploaded(tmp_path / "pairs")
    assert remote.equals(tmp_path / "pairs")
    assert [path.stat().st_mtime_ns for path in sorted((tmp_path / "pairs").glob("*.tar"))][:2] == stamps


@pytest.mark.parametrize("kind", ["kill", "kill_after"])
@pytest.mark.parametrize("request_number", [5, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 3, 4, 6, 7))])
def test_killed_at_any_request_it_is_resumed(remote, s3, tmp_path, kind, request_number):
    """The process is killed before or after its Nth change, in one that follows it as well."""
    for number in (request_number, 1):
        s3.faults = [Fault("", "^PUT", number - 1), Fault(kind, "^PUT")]
        process = CONTEXT.Process(target=collect_uploaded, args=(tmp_path / "pairs",))
        process.start()
        s3.faults[1].victim = process.pid
        process.join()
        assert process.exitcode == -9 or (number, process.exitcode) == (1, 0)  # nothing was left to do
    s3.faults = []
    collect_uploaded(tmp_path / "pairs")
    assert remote.equals(tmp_path / "pairs") and not remote.broken


def test_processes_share_the_uploads(remote, s3, tmp_path):
    units = [1] * 8
    prepare(tmp_path / "pairs", CONFIG, [()] * len(units), upload=Upload(tmp_path / "pairs", URL))
    processes = [CONTEXT.Process(target=collect_uploaded, args=(tmp_path / "pairs", units)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 3
    assert remote.equals(tmp_path / "pairs")
    assert s3.count(r"^PUT .*\.tar") == len(units)


def test_another_shard_of_the_same_name_replaces_the_old_one(remote, tmp_path):
    """As mode=retry and mode=extend do, which collect a unit again."""
    writer = collect_uploaded(tmp_path / "pairs")
    writer.write(1, [make_pair(number) for number in range(50, 55)])
    writer.index.tidy()
    assert remote.equals(tmp_path / "pairs")
    assert min(remote.states[7:]) == 2  # without the one that is replaced


def test_what_was_deleted_there_is_uploaded_again(remote, s3, tmp_path):
    collect_uploaded(tmp_path / "pairs")
    s3.ask("DELETE", quote(f"/{FOLDER}/pairs-000001.tar"))
    collect_uploaded(tmp_path / "pairs")
    assert remote.equals(tmp_path / "pairs")
    s3.ask("DELETE", quote(f"/{FOLDER}/{INDEX_NAME}"))
    collect_uploaded(tmp_path / "pairs")
    assert remote.equals(tmp_path / "pairs")


def test_a_collection_that_exists_is_uploaded(remote, tmp_path):
    collect_uploaded(tmp_path / "pairs", url="s3://pairs/elsewhere")
    stamp = (tmp_path / "pairs/index.json").stat().st_mtime_ns
    collect_uploaded(tmp_path / "pairs")
    assert remote.equals(tmp_path / "pairs")
    assert (tmp_path / "pairs/index.json").stat().st_mtime_ns == stamp


def test_a_damaged_shard_is_not_uploaded(remote, tmp_path):
    collect_uploaded(tmp_path / "pairs", url="s3://pairs/elsewhere")
    path = tmp_path / "pairs/pairs-000001.tar"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"pairs-000001\.tar is damaged \(its checksum"):
        collect_uploaded(tmp_path / "pairs")
    assert list(remote.shards()) == ["pairs-000000.tar"]
    path.unlink()
    collect_uploaded(tmp_path / "pairs")
    assert remote.equals(tmp_path / "pairs")


def test_a_place_with_other_pairs_is_refused(remote, s3, tmp_path):
    collect_uploaded(tmp_path / "pairs")
    before = remote.shards()
    for mode in ("resume", "overwrite"):
        with pytest.raises(UserError, match=rf"{URL} holds pairs that .*/other did not upload: choose another place"):
            collect_uploaded(tmp_path / "other", mode=mode)
    assert remote.shards() == before
    s3.ask("DELETE", quote(f"/{FOLDER}/collection.txt"))  # such as pairs that were put there by hand
    with pytest.raises(UserError, match="holds pairs that"):
        collect_uploaded(tmp_path / "other")


def test_two_folders_that_begin_at_once_do_not_share_a_place(remote, s3, tmp_path):
    first = Upload(tmp_path / "pairs", URL)
    prepare(tmp_path / "pairs", CONFIG, [()] * 3, upload=first)
    s3.ask("PUT", quote(f"/{FOLDER}/collection.txt"), b"of another folder")
    writer = ShardWriter(tmp_path / "pairs", CONFIG, first)
    with pytest.raises(UserError, match=rf"another folder than .*/pairs uploads to {URL}"):
        writer.write(0, [make_pair(0)])
    assert remote.shards() == {}


def test_overwriting_deletes_what_was_uploaded_and_nothing_else(remote, s3, tmp_path):
    collect_uploaded(tmp_path / "pairs")
    s3.ask("PUT", quote(f"/{FOLDER}/notes.txt"), b"mine")
    collect_uploaded(tmp_path / "pairs", [5], mode="overwrite")
    assert remote.equals(tmp_path / "pairs") and len(remote.shards()) == 1
    assert remote.get("pairs-000001.tar") is None and remote.get("notes.txt") == b"mine"


def test_killed_while_overwriting(remote, s3, tmp_path):
    collect_uploaded(tmp_path / "pairs")
    for number in (1, 2):
        s3.faults = [Fault("", "^DELETE", number - 1), Fault("kill_after", "^DELETE")]
        process = CONTEXT.Process(target=collect_uploaded, args=(tmp_path / "pairs", [5], URL, "overwrite"))
        process.start()
        s3.faults[1].victim = process.pid
        process.join()
        assert process.exitcode == -9
        s3.faults = []
        collect_uploaded(tmp_path / "pairs")  # as if one had thought better of it
        assert remote.equals(tmp_path / "pairs") and not remote.broken


def test_mistakes_are_one_line_before_any_work(s3, tmp_path):
    for wrong in ("outputs/pairs", "file:///pairs", "pipe:cat"):
        with pytest.raises(
            UserError, match=rf"upload={wrong} is not a URL of object storage: write it like s3://BUCKET"
        ):
            Upload(tmp_path, wrong)
    with pytest.raises(UserError, match=r"s3://nobucket/set/collection\.txt cannot be written .*NoSuchBucket.*: check"):
        collect_uploaded(tmp_path / "pairs", url="s3://nobucket/set")
    assert ShardIndex.load(tmp_path / "pairs").shards == []


def test_clocks_do_not_matter(remote, tmp_path, monkeypatch):
    monkeypatch.setattr(uploading, "INTERVAL", 30.0)
    writer = collect_uploaded(tmp_path / "pairs", [1])
    published = next((tmp_path / "pairs").glob(".upload-*/published"))
    os.utime(published, (0, time.time() + 9999))  # written by a machine whose clock is fast
    writer.write(1, [make_pair(50)])
    assert len(remote.shards()) == 2
