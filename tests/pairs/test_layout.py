"""The file of the index: one line for a shard, whole whatever interrupts its writing, and readable for ever."""

import dataclasses
import json
import random
import threading

import pytest

from golden_noise.errors import UserError
from golden_noise.pairs import Failure, ShardEntry, ShardIndex, layout

from .factory import CONFIG


def entry(unit: int, samples: int = 2) -> ShardEntry:
    failures = [Failure(unit, "Würfel\u2028\n", "zu groß")] * (unit % 2)
    return ShardEntry(f"pairs-{unit:06d}.tar", samples, 1, 10, "0" * 64, bytes(4 * samples), "1" * 64, failures)


def make(folder, units, config=CONFIG) -> ShardIndex:
    index = ShardIndex.open(folder, config)
    for unit in units:
        index.add(entry(unit))
    return index


def content(folder) -> bytes:
    return (folder / "index.json").read_bytes()


def units(index: ShardIndex) -> list[int]:
    return [shard.unit for shard in index.shards]


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_it_is_json_with_a_line_for_each_shard(tmp_path, count):
    make(tmp_path, range(count))
    document = json.loads(content(tmp_path))
    assert document["config"] == CONFIG and len(document["shards"]) == count
    assert content(tmp_path).count(b"\n") == count + 2
    assert ShardIndex.load(tmp_path).shards == [entry(unit) for unit in range(count)]
    assert ShardIndex.parse(content(tmp_path), tmp_path, "url").shards == ShardIndex.load(tmp_path).shards


def test_what_a_kill_left_of_a_longer_line_is_gone(tmp_path):
    make(tmp_path, [0])
    ShardIndex.load(tmp_path).add(entry(1, samples=500))
    (tmp_path / "index.json").write_bytes(content(tmp_path)[:-100])
    ShardIndex.load(tmp_path).add(entry(1))
    assert json.loads(content(tmp_path)) and units(ShardIndex.load(tmp_path)) == [0, 1]


@pytest.mark.parametrize("count", [0, 2])
def test_a_kill_at_any_byte_of_an_addition_loses_nothing(tmp_path, count):
    make(tmp_path, range(count))
    before = content(tmp_path)
    ShardIndex.load(tmp_path).add(entry(count))
    after = content(tmp_path)
    start = len(before) - len(layout.END)
    assert after.startswith(before[:start])
    near = [*range(start, start + 4), *range(len(after) - 6, len(after))]
    for end in [*near, *range(start + 4, len(after) - 6, 37)]:
        (tmp_path / "index.json").write_bytes(after[:end])
        index = ShardIndex.load(tmp_path)
        assert units(index) == list(range(count + (end >= len(after) - len(layout.END))))
        index.add(entry(count))
        assert content(tmp_path) == after or end >= len(after) - len(layout.END)  # then it stands there twice
        index.tidy()
        assert content(tmp_path) == after


def test_adding_writes_a_line_and_reads_one(tmp_path):
    index = make(tmp_path, range(3))
    before = content(tmp_path)
    file = (tmp_path / "index.json").stat().st_ino
    index.add(entry(3))
    assert (tmp_path / "index.json").stat().st_ino == file
    assert content(tmp_path)[: len(before) - 3] == before[:-3]


def old(folder, shards, config=CONFIG) -> None:
    """An index as earlier versions wrote it."""
    rows = []
    for shard in shards:
        row = dataclasses.asdict(shard)
        row["asked"] = row.pop("prompts_sha256")
        rows.append(row | {"prompts": ["00000000"] * shard.samples})
    document = {"version": 1, "config": config, "shards": rows}
    (folder / "index.json").write_text(json.dumps(document, sort_keys=True))


def test_an_index_of_earlier_versions_is_read_and_goes_on(tmp_path):
    old(tmp_path, [entry(0), entry(1)])
    before = content(tmp_path)
    assert ShardIndex.load(tmp_path) == ShardIndex(tmp_path, CONFIG, [entry(0), entry(1)])
    index = ShardIndex.open(tmp_path, CONFIG)
    assert content(tmp_path) == before
    with pytest.raises(UserError, match=r"pipeline\.steps"):
        ShardIndex.open(tmp_path, {"pipeline": {"name": "tiny", "steps": 50}, "search": CONFIG["search"]})
    index.add(entry(2))
    (other := tmp_path / "other").mkdir()
    make(other, range(3))
    assert content(tmp_path) == content(other)


def test_what_others_add_and_change_is_noticed(tmp_path):
    index, other = ShardIndex.open(tmp_path, CONFIG), ShardIndex.open(tmp_path, CONFIG)
    for unit in (4, 2, 3):
        other.add(entry(unit))
    index.refresh()
    assert units(index) == [2, 3, 4]
    other.add(dataclasses.replace(entry(3), rejected=7))  # redone
    index.refresh()
    assert index.find("pairs-000003.tar").rejected == 7 and units(index) == [2, 3, 4]
    other.tidy()
    index.add(entry(5))
    assert units(ShardIndex.load(tmp_path)) == units(index) == [2, 3, 4, 5]
    other.forget_failures()
    index.refresh()
    assert units(index) == [2, 4] and index.find("pairs-000003.tar") is None
    (tmp_path / "index.json").unlink()
    with pytest.raises(UserError, match="no noise pairs"):
        index.refresh()


def test_another_description_of_the_same_length_is_noticed(tmp_path):
    make(tmp_path, [0], CONFIG | {"prompts": {"count": 10}})
    index = ShardIndex.load(tmp_path)
    ShardIndex.open(tmp_path, CONFIG | {"prompts": {"count": 20}}, other_prompts=True)
    for _ in range(2):
        with pytest.raises(UserError, match="another process collects other pairs"):
            index.add(entry(1))
    index.refresh()
    assert index.config["prompts"] == {"count": 20}


def test_any_order_of_adding_ends_in_the_same_bytes(tmp_path):
    for seed in range(3):
        (folder := tmp_path / str(seed)).mkdir()
        make(folder, random.Random(seed).sample(range(8), 8)).tidy()
    assert content(tmp_path / "0") == content(tmp_path / "1") == content(tmp_path / "2")
    assert units(ShardIndex.load(tmp_path / "0")) == list(range(8))


def test_readers_see_whole_lines_while_others_write(tmp_path):
    ShardIndex.open(tmp_path, CONFIG)

    def add(start):
        index = ShardIndex.open(tmp_path, CONFIG)
        for unit in range(start, 60, 4):
            index.add(entry(unit, samples=500))
        index.tidy()

    writers = [threading.Thread(target=add, args=(start,)) for start in range(4)]
    for writer in writers:
        writer.start()
    follower, counts = ShardIndex.load(tmp_path), [0]
    while any(writer.is_alive() for writer in writers):
        follower.refresh()
        counts.append(len(follower.shards))
        assert len(ShardIndex.load(tmp_path).shards) >= counts[-1]
    assert counts == sorted(counts)
    assert units(ShardIndex.load(tmp_path)) == list(range(60))


@pytest.mark.parametrize("change", ["}\n,{", "]}\n,", "[]\n", '{"name": 1}\n'])
def test_a_line_that_is_none_is_refused(tmp_path, change):
    make(tmp_path, range(3))
    first, second, *rest = content(tmp_path).split(b"\n")
    (tmp_path / "index.json").write_bytes(b"\n".join([first, second, change.encode() + rest[0], *rest[1:]]))
    with pytest.raises(UserError, match=r"index\.json is damaged"):
        ShardIndex.load(tmp_path)
