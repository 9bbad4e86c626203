import json

import pytest

from golden_noise.errors import UserError
from golden_noise.pairs import ShardEntry, ShardIndex, ShardWriter

from .factory import CONFIG

ENTRY = ShardEntry("pairs-000001.tar", 2, 1, 10, "0" * 64, bytes.fromhex("00000000ffffffff"))


def test_an_index_survives_the_round_trip(tmp_path):
    index = ShardIndex.open(tmp_path, CONFIG)
    index.add(ENTRY)
    assert ShardIndex.load(tmp_path) == index == ShardIndex(tmp_path, CONFIG, [ENTRY])


def test_processes_that_share_a_folder_keep_each_others_shards(tmp_path):
    first, second = ShardIndex.open(tmp_path, CONFIG), ShardIndex.open(tmp_path, CONFIG)
    other = ShardEntry("pairs-000000.tar", 0, 0, 10, "0" * 64, b"")
    first.add(ENTRY)
    second.add(other)
    assert ShardIndex.load(tmp_path).shards == [other, ENTRY]


def test_another_config_is_refused_with_the_keys_that_differ(tmp_path):
    ShardIndex.open(tmp_path, CONFIG).add(ENTRY)
    other = {"pipeline": {"name": "tiny", "steps": 50}, "search": {"rounds": 1, "w1": 5.5}}
    with pytest.raises(UserError) as error:
        ShardWriter(tmp_path, other)
    message = str(error.value)
    assert "pipeline.steps=10, search.w1=(absent)" in message
    assert "pipeline.steps=50, search.w1=5.5" in message
    advice = message.partition(": ")[2]
    assert advice.startswith("repeat those settings, or choose another data_dir") and "delete" in advice


def test_other_prompts_alone_may_be_more_of_the_same(tmp_path):
    ShardIndex.open(tmp_path, CONFIG | {"prompts": {"count": 10}}).add(ENTRY)
    with pytest.raises(
        UserError, match=r"prompts\.count=20: python collect\.py with these settings and mode=extend takes more"
    ):
        ShardIndex.open(tmp_path, CONFIG | {"prompts": {"count": 20}})


def test_an_empty_folder_is_bound_to_nothing_but_a_collector_notices_the_change(tmp_path):
    first = ShardIndex.open(tmp_path, CONFIG)
    other = ShardIndex.open(tmp_path, {"search": {"rounds": 7}})
    with pytest.raises(UserError, match="another process collects other pairs"):
        first.add(ENTRY)
    other.add(ENTRY)
    assert ShardIndex.load(tmp_path).config == {"search": {"rounds": 7}}


def test_the_same_config_with_tuples_is_the_same(tmp_path):
    ShardWriter(tmp_path, {"shape": (4, 8, 8)})
    assert ShardWriter(tmp_path, {"shape": [4, 8, 8]}).index.shards == []


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../pairs-000001.tar"},
        {"name": "pairs-000001.tar\n"},
        {"name": 1},
        {"samples": 3},
        {"bytes": -1},
        {"rejected": True},
        {"sha256": "0"},
        {"prompts": "00000000zzzzzzzz"},
        {"prompts": "00000000FFFFFFFF"},
        {"prompts": "00000000"},
        {"prompts": ["00000000", "zzzzzzzz"]},
        {"prompts": ["0000000", "0ffffffff"]},
        {"prompts": [0, 1]},
        {"extra": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_tampered_entry_is_refused(tmp_path, change):
    ShardIndex(tmp_path, CONFIG, [ENTRY]).save()
    path = tmp_path / "index.json"
    content = json.loads(path.read_text())
    content["shards"][0] |= change
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"index\.json is damaged.*repeat the collection"):
        ShardIndex.load(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 3, "config": {}, "shards": []}', "[" * 100_000])
def test_a_damaged_index_is_one_line(tmp_path, text):
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(UserError, match=r"index\.json is damaged") as error:
        ShardIndex.load(tmp_path)
    assert "\n" not in str(error.value) and "indices" not in str(error.value)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=f"cannot write to {folder}") as error:
            ShardWriter(folder, CONFIG)
        assert "\n" not in str(error.value)
