import math
import threading

from filelock import FileLock

from golden_noise.evaluation.cache import Cache


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


def test_the_first_number_of_a_key_stays(tmp_path):
    cache = Cache(tmp_path / "scores.jsonl")
    cache.put({"a": 1.0})
    cache.put({"a": 1.5, "b": 2.0})
    assert cache.get(["a", "b"]) == Cache(tmp_path / "scores.jsonl").get(["a", "b"]) == [1.0, 2.0]


def test_what_others_add_is_read_from_where_the_last_look_ended(tmp_path):
    mine, theirs = (Cache(tmp_path / "scores.jsonl") for _ in range(2))
    for number in range(3):
        theirs.put({f"{number}": float(number)})
        assert mine.get([f"{number}"]) is None
        mine.refresh()
        assert mine.get([f"{number}"]) == [float(number)]


def test_a_line_that_another_process_is_writing_is_read_once_it_is_whole(tmp_path):
    path = tmp_path / "scores.jsonl"
    path.write_text('["a", 1]\n["b", 2')
    cache = Cache(path)
    assert cache.get(["a"]) == [1.0] and cache.get(["b"]) is None
    path.write_text('["a", 1]\n["b", 2.5]\n')
    cache.refresh()
    assert cache.get(["a", "b"]) == [1.0, 2.5]


def test_one_process_writes_after_the_other(tmp_path):
    cache = Cache(tmp_path / "scores.jsonl")
    cache.put({"a": 1.0})
    writer = threading.Thread(target=cache.put, args=({"b": 2.0},))
    with FileLock(tmp_path / ".scores.jsonl.lock"):
        writer.start()
        writer.join(0.2)
        assert Cache(tmp_path / "scores.jsonl").get(["b"]) is None
    writer.join(30)
    assert Cache(tmp_path / "scores.jsonl").get(["a", "b"]) == [1.0, 2.0]


def test_of_two_processes_that_measured_the_same_the_first_number_stays(tmp_path):
    one, two = (Cache(tmp_path / "scores.jsonl") for _ in range(2))
    one.put({"a": 1.0})
    two.put({"a": 1.5})
    assert Cache(tmp_path / "scores.jsonl").get(["a"]) == [1.0]
