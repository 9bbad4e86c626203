import math
import os

from golden_noise.evaluation.cache import BLOCK, SAMPLES, Cache, file_digest, key, local_files, sampled_digest


def test_numbers_come_back_exactly(tmp_path):
    cache = Cache(tmp_path / "new/scores.jsonl")
    assert cache.get(["a"]) is None
    cache.put({"a": 0.1 + 0.2, "b": -1e-300})
    assert cache.get(["b", "a"]) == [-1e-300, 0.1 + 0.2]
    assert Cache(tmp_path / "new/scores.jsonl").get(["a", "b"]) == [0.1 + 0.2, -1e-300]
    assert cache.get(["a", "c"]) is None


def test_what_a_kill_cut_off_is_unknown_and_does_not_spoil_what_follows(tmp_path):
    path = tmp_path / "scores.jsonl"
    Cache(path).put({"a": 1.0, "b": 2.5})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        cache = Cache(path)
        assert cache.get(["b"]) is None or length >= len(whole) - 1
        cache.put({"b": 2.5, "c": 3.0})
        assert Cache(path).get(["b", "c"]) == [2.5, 3.0]


def test_numbers_that_are_not_finite_are_not_kept(tmp_path):
    cache = Cache(tmp_path / "scores.jsonl")
    cache.put({"a": math.nan, "b": 1.0})
    assert cache.get(["a"]) is None and cache.get(["b"]) == [1.0]


def test_foreign_lines_are_ignored(tmp_path):
    path = tmp_path / "scores.jsonl"
    path.write_text('{"a": 1}\n["a", "x"]\n["a"]\n["b", NaN]\n\xff\n["c", 2]\n')
    assert Cache(path).get(["c"]) == [2.0]
    assert Cache(path).get(["a"]) is None


def test_keys_depend_on_every_part_and_not_on_the_order_of_settings():
    assert key("score", {"a": 1, "b": 2}) == key("score", {"b": 2, "a": 1})
    assert len({key("score", "x"), key("score", "y"), key("x", "score"), key("score", ["x"])}) == 4


def test_a_changed_file_has_another_digest(tmp_path):
    (tmp_path / "a").write_bytes(b"one")
    before = file_digest(tmp_path / "a")
    (tmp_path / "a").write_bytes(b"two")
    assert file_digest(tmp_path / "a") != before


def test_the_first_number_of_a_key_stays(tmp_path):
    cache = Cache(tmp_path / "scores.jsonl")
    cache.put({"a": 1.0})
    cache.put({"a": 1.5, "b": 2.0})
    assert cache.get(["a", "b"]) == Cache(tmp_path / "scores.jsonl").get(["a", "b"]) == [1.0, 2.0]


def test_other_files_in_the_same_place_are_other_settings(tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/a.bin").write_bytes(b"one")
    settings = {"model": str(tmp_path / "weights"), "head": {"file": str(tmp_path / "weights/a.bin")}, "scale": 2}
    before = local_files(settings)
    assert len(before) == 2 and local_files(settings) == before
    (tmp_path / "weights/a.bin").write_bytes(b"two")
    assert local_files(settings).keys() == before.keys()
    assert not set(local_files(settings).items()) & set(before.items())


def test_settings_that_name_no_files():
    assert local_files({"model": "ORG/NAME", "prefix": "", "words": "w" * 5000, "null": "a\0b", "size": None}) == {}
    assert list(local_files({"model": "package:shapes/weights/reward"})) == ["package:shapes/weights/reward"]


def test_of_a_large_file_its_size_and_samples_count(tmp_path):
    path, size = tmp_path / "weights", SAMPLES * BLOCK + 3_000_001
    with path.open("wb") as file:
        file.truncate(size)  # takes no space
    digests = {sampled_digest(path)}
    for place in (0, size // 2 // BLOCK * BLOCK, size - 1):
        with path.open("r+b") as file:
            file.seek(place)
            file.write(b"x")
        digests.add(sampled_digest(path))
    with path.open("ab") as file:
        file.write(b"x")
    assert len(digests | {sampled_digest(path)}) == 5


def test_a_file_that_was_only_touched_is_the_same(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"weights")
    before = local_files({"model": str(tmp_path)})
    os.utime(tmp_path / "a.bin", (0, 0))
    assert local_files({"model": str(tmp_path)}) == before
