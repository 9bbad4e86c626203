import errno
import hashlib
import multiprocessing
import os
import tarfile
import tempfile
import threading
import time
from pathlib import Path

import pytest
import torch
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from golden_noise.errors import UserError
from golden_noise.pairs import NoisePair, ShardIndex, ShardWriter, read_shard, write_shard
from golden_noise.prompts import Prompt

from .factory import CONFIG, collect, make_pair


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def keys(folder: Path) -> list[str]:
    return [sample["__key__"] for shard in ShardIndex.load(folder).shards for sample in read_shard(folder, shard)]


def test_the_entry_describes_the_file(tmp_path):
    entry = ShardWriter(tmp_path, CONFIG).write(3, [make_pair(0), make_pair(1, accepted=False), make_pair(2)])
    content = (tmp_path / "pairs-000003.tar").read_bytes()
    assert (entry.name, entry.samples, entry.rejected) == ("pairs-000003.tar", 2, 1)
    assert (entry.bytes, entry.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert ShardIndex.load(tmp_path).shards == [entry]
    with tarfile.open(tmp_path / "pairs-000003.tar") as tar:
        members = tar.getnames()
        assert [name for name in members if name.startswith("000000001")] == ["000000001.json"]
        assert {member.mtime for member in tar.getmembers()} == {0}


def test_pairs_read_back_equal(tmp_path):
    pairs = [make_pair(0), make_pair(1, accepted=False), make_pair(2)]
    entry = ShardWriter(tmp_path, CONFIG).write(0, pairs)
    loaded = [NoisePair.from_sample(sample) for sample in read_shard(tmp_path, entry)]
    assert [pair.prompt for pair in loaded] == [pairs[0].prompt, pairs[2].prompt]


def test_two_collectors_share_the_units_and_see_all_of_them_finished(tmp_path):
    both_have_one = threading.Barrier(2, timeout=60)

    def work(taken: list[int]) -> None:
        writer = ShardWriter(tmp_path, CONFIG)
        with writer.taking([""] * 6) as units:
            for unit in units:
                if not taken:
                    both_have_one.wait()
                writer.write(unit, [make_pair(unit)])
                taken.append(unit)
        assert all(writer.is_finished(unit) for unit in range(6))

    mine: list[int] = []
    others: list[int] = []
    thread = threading.Thread(target=work, args=(others,))
    thread.start()
    work(mine)
    thread.join(10)
    assert sorted(mine + others) == list(range(6)) and mine and others
    assert keys(tmp_path) == [f"{unit:09d}" for unit in range(6)]
    assert not list(tmp_path.glob(".pairs*"))


@pytest.mark.parametrize(("known", "missing"), [((5, 1, 2, 3, 4), 0), ((0, 5, 2, 3, 4), 1)])
def test_a_collector_that_waits_sees_all_in_an_index_that_another_has_put_in_order(tmp_path, known, missing):
    """Its last line is where it was: as many lines are before it, but not the same ones."""
    waiting, last = ShardWriter(tmp_path, CONFIG), ShardWriter(tmp_path, CONFIG)
    for unit in known:
        waiting.write(unit, [make_pair(unit)])
    last.write(missing, [make_pair(missing)])
    last.index.tidy()
    waiting.index.refresh()
    assert [shard.unit for shard in waiting.index.shards] == list(range(6))


def test_an_index_is_read_anew_only_if_it_was_written_anew(tmp_path, monkeypatch):
    looks, works = ShardWriter(tmp_path, CONFIG), ShardWriter(tmp_path, CONFIG)
    for unit in (5, 3):
        works.write(unit, [make_pair(unit)])
    looks.index.refresh()
    works.index.tidy()
    looks.index.refresh()
    monkeypatch.delattr(ShardIndex, "_replace")
    for unit in (2, 4, 1):
        works.write(unit, [make_pair(unit)])
        looks.index.refresh()
    assert [shard.unit for shard in looks.index.shards] == [1, 2, 3, 4, 5]


@settings(deadline=None, max_examples=20)
@given(st.permutations(range(6)), st.lists(st.sampled_from(("refresh", "tidy", "nothing")), min_size=6, max_size=6))
def test_whatever_others_add_and_put_in_order_is_seen(order, between):
    with tempfile.TemporaryDirectory() as folder:
        looks, works = ShardWriter(folder, CONFIG), ShardWriter(folder, CONFIG)
        for unit, then in zip(order, between, strict=True):
            works.write(unit, [make_pair(unit)])
            if then == "refresh":
                looks.index.refresh()
            elif then == "tidy":
                works.index.tidy()
        looks.index.refresh()
        assert [shard.unit for shard in looks.index.shards] == list(range(6))
        assert looks.index == ShardIndex.load(Path(folder))


def test_units_of_a_collector_that_ends_are_taken_by_one_that_waits(tmp_path):
    first, second = ShardWriter(tmp_path, CONFIG), ShardWriter(tmp_path, CONFIG)
    waits = threading.Event()
    with first.taking([""] * 2) as taken:
        assert next(taken) == 0

        def work() -> None:
            with second.taking([""] * 2, waits.set) as units:
                for unit in units:
                    second.write(unit, [make_pair(unit)])

        thread = threading.Thread(target=work)
        thread.start()
        assert waits.wait(10)
        assert keys(tmp_path) == ["000000001"]
    thread.join(10)
    assert keys(tmp_path) == ["000000000", "000000001"]


def test_the_same_pairs_give_the_same_bytes(tmp_path, monkeypatch):
    collect(tmp_path / "a", [3, 2])
    later = time.time() + 10_000
    monkeypatch.setattr(time, "time", lambda: later)
    collect(tmp_path / "b", [3, 2])
    for name in ("pairs-000000.tar", "pairs-000001.tar", "index.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(("function", "step"), [*(("fsync", i) for i in range(3)), ("replace", 0)])
def test_a_crash_at_any_step_leaves_the_unit_finished_or_to_be_redone(tmp_path, monkeypatch, function, step):
    """fsync is called three times (shard, folder, index) and replace once (shard)."""
    collect(tmp_path / "expected", [2, 3])
    folder = tmp_path / "crashed"
    collect(folder, [2])
    writer, real, calls = ShardWriter(folder, CONFIG), getattr(os, function), 0

    def crash(*args):
        nonlocal calls
        calls += 1
        if calls == step + 1:
            raise Killed
        return real(*args)

    second = [make_pair(index) for index in (3, 4, 5)] + [make_pair(6, accepted=False)]
    with monkeypatch.context() as patch:
        patch.setattr(os, function, crash)
        with pytest.raises(Killed):
            writer.write(1, second)

    restarted = ShardWriter(folder, CONFIG)
    assert restarted.is_finished(0)
    assert keys(folder)[:2] == ["000000000", "000000001"]
    if restarted.is_finished(1):
        assert keys(folder)[2:] == ["000000003", "000000004", "000000005"]
    else:
        assert keys(folder)[2:] == []
        restarted.write(1, second)
    assert_same_folder(folder, tmp_path / "expected")


def assert_same_folder(folder: Path, expected: Path) -> None:
    names = sorted(path.name for path in expected.iterdir())
    assert sorted(path.name for path in folder.iterdir()) == names
    assert all((folder / name).read_bytes() == (expected / name).read_bytes() for name in names)


def test_a_crash_between_two_pairs_leaves_no_shard(tmp_path):
    def pairs():
        yield make_pair(0)
        raise Killed

    writer = ShardWriter(tmp_path, CONFIG)
    with pytest.raises(Killed):
        writer.write(0, pairs())
    assert not ShardWriter(tmp_path, CONFIG).is_finished(0)
    assert not (tmp_path / "pairs-000000.tar").exists()


def test_real_kills_leave_only_whole_shards(tmp_path):
    """A collection is killed and restarted at many moments; it ends up as if it never had been."""
    sizes = [5] * 30
    collect(tmp_path / "expected", sizes)
    folder = tmp_path / "killed"
    for milliseconds in range(2, 60, 4):
        process = multiprocessing.get_context("fork").Process(target=collect, args=(folder, sizes))
        process.start()
        time.sleep(milliseconds / 1000)
        process.kill()
        process.join()
        process.close()
        if (folder / "index.json").exists():
            count = len(ShardIndex.load(folder).shards)
            assert keys(folder) == [f"{6 * unit + i:09d}" for unit in range(count) for i in range(5)]
    collect(folder, sizes)
    assert_same_folder(folder, tmp_path / "expected")


def test_a_lost_or_truncated_shard_is_to_be_redone(tmp_path):
    writer = collect(tmp_path, [2, 2, 2])
    (tmp_path / "pairs-000000.tar").unlink()
    os.truncate(tmp_path / "pairs-000001.tar", 100)
    assert [writer.is_finished(unit) for unit in range(4)] == [False, False, True, False]


def test_a_shard_without_entry_is_to_be_redone(tmp_path):
    write_shard(tmp_path, 0, [make_pair(0)])
    assert not ShardWriter(tmp_path, CONFIG).is_finished(0)


def test_a_full_disk_is_one_line(tmp_path):
    """The name of the temporary file leads to a device that refuses every write."""
    writer = ShardWriter(tmp_path, CONFIG)
    (tmp_path / ".pairs-000000.tar.tmp").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"pairs-000000\.tar.*No space left"):
        writer.write(0, [make_pair(0)])
    assert not writer.is_finished(0)


def test_a_shard_is_the_same_bytes_in_every_version(tmp_path):
    """Checksums in indexes, and the equality of sets that were collected twice, rest on it."""
    noise = torch.arange(16).reshape(4, 2, 2) / 8
    pairs = [
        NoisePair(
            Prompt(index, text, index), noise + index, noise - index, embeds, {"shapes": (0.25, 0.5)}, index < 2, {}
        )
        for index, (text, embeds) in enumerate([("a cube", None), ("ein Würfel", noise[0]), ("a sphere", None)])
    ]
    entry = write_shard(tmp_path, 0, pairs)
    assert entry.bytes == 10240
    assert entry.sha256 == "56b678c29cf65e62f71119aff63fd5b4e880a5aac71437c3bd196636e37edb39"
    with tarfile.open(tmp_path / entry.name) as tar:
        members = tar.getmembers()
    assert all((member.mode, member.mtime, member.uname, member.uid) == (0o444, 0, "", 0) for member in members)


def test_webdataset_reads_shards(tmp_path):
    entry = write_shard(tmp_path, 0, [make_pair(0), make_pair(1)])
    samples = list(webdataset.WebDataset(str(tmp_path / entry.name), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == ["000000000", "000000001"]
    assert {name for name in samples[0] if name[0] != "_"} == {*make_pair(0).to_sample()} - {"__key__"}


def test_only_errors_of_writing_are_those_of_the_shard(tmp_path):
    def results():
        yield make_pair(0)
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "weights.safetensors")

    with pytest.raises(FileNotFoundError, match=r"weights\.safetensors"):
        write_shard(tmp_path, 0, results())
    with pytest.raises(UserError, match=r"making .*pairs-000000\.tar failed"):
        write_shard(tmp_path / "nowhere", 0, [make_pair(0)])
