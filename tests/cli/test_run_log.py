"""The log of a run: every line with its time, no progress bar."""

import io
import re
import sys

from tqdm import tqdm

from golden_noise.cli.run_log import RunLog, Tee


def logged(path):
    return [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", "", line) for line in path.read_text().splitlines()]


def test_lines_are_logged_and_progress_bars_are_not(tmp_path):
    stream = io.StringIO()
    tee = Tee(stream, RunLog(tmp_path / "log.txt", tmp_path))
    print("one\n\ntwo", file=tee)
    with tqdm(total=3, file=tee, mininterval=0) as bar:
        bar.update()
        bar.write("between", file=tee)
        bar.update(2)
    print("in parts", end=" ", file=tee)
    print("\x1b[1mbold\x1b[0m", file=tee)
    assert logged(tmp_path / "log.txt") == ["one", "two", "between", "in parts bold"]
    assert "3/3" in stream.getvalue() and "between" in stream.getvalue()  # on the screen there is everything


def test_a_job_logs_its_command_and_both_streams(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["generate.py", "prompt=a red circle"])
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, io.StringIO())
    RunLog(tmp_path / "log.txt", tmp_path).start()
    print("said")
    print("half\rwarned", file=sys.stderr)
    assert logged(tmp_path / "log.txt") == ["$ python generate.py 'prompt=a red circle'", "said", "warned"]


def test_a_resumed_run_appends(tmp_path):
    for text in ("first", "second"):
        RunLog(tmp_path / "log.txt", tmp_path).line(text)
    assert logged(tmp_path / "log.txt") == ["first", "second"]


def test_nothing_is_written_before_the_job_has_begun(tmp_path):
    log = RunLog(tmp_path / "pairs/log.txt", tmp_path / "pairs/index.json")
    log.line("one")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "pairs").mkdir()
    log.line("two")
    assert list((tmp_path / "pairs").iterdir()) == []
    (tmp_path / "pairs/index.json").touch()
    log.line("three")
    assert logged(tmp_path / "pairs/log.txt") == ["one", "two", "three"]
