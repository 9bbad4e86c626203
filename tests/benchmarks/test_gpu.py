"""The script for a GPU: every section with tiny models on the CPU, and what becomes of one that fails or is killed."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_day import plan
from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.results import Result, Row, commit_of, table
from benchmarks.gpu_day.section import run

LONG, SLOW = pytest.mark.long, pytest.mark.slow
#: (a) calls pytest, see below.
SECTIONS = [pytest.param("b", marks=LONG), *(pytest.param(name, marks=SLOW) for name in "cdefg")]


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_measures_everything_with_tiny_models(name, tmp_path):
    result = run(name, tmp_path, "commit", tiny=True)
    assert result.complete and not result.error and Result.load(tmp_path, name) == result
    assert result.rows and not [row for row in result.rows if row.value is None or row.value <= 0]
    assert not [row for row in result.rows if row.met is not None]  # of tiny models no goal is judged


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_script_and_its_table(tmp_path):
    command = [sys.executable, "benchmarks/gpu.py", "--tiny", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=gpu.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.stem for path in tmp_path.glob("*.json")} == set(plan.SECTIONS)
    assert all(f"| {name} | " in done.stdout for name in plan.SECTIONS) and "a tiny build" in done.stdout
    assert "| a | tests failed | 0 |" in done.stdout and not (tmp_path / plan.SCRATCH).exists()
    again = subprocess.run(command, cwd=gpu.ROOT, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0 and again.stdout.count("done before") == len(plan.SECTIONS)


def write_section(folder, code):
    """A section of its own kind, as a module that can be imported."""
    (folder / "benchmarks/gpu_day").mkdir(parents=True)
    (folder / "benchmarks/gpu_day/section.py").write_text(code)


FAKE = """
import sys, time
from pathlib import Path
name, folder, commit = sys.argv[1:4]
if name == "a":
    sys.exit(3)
text = '{"section": "%s", "tiny": true, "commit": "%s", "complete": %s, "rows": [{"what": "x", "value": 2}]}'
Path(folder, name + ".json").write_text(text % (name, commit, "false" if name == "b" else "true"))
if name == "b":
    time.sleep(60)
"""


def test_a_section_that_dies_or_takes_too_long_leaves_the_others_alone(tmp_path, monkeypatch):
    write_section(tmp_path, FAKE)
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    monkeypatch.setattr(gpu, "SLOWER", 1)
    short = {name: replace(plan.SECTIONS[name], seconds=seconds) for name, seconds in {"a": 3, "b": 1, "c": 30}.items()}
    monkeypatch.setattr(gpu, "SECTIONS", short)
    a, b, c = gpu.run(tmp_path / "out", [], tiny=True)
    assert a.error == "the process ended with code 3, see a.log" and not a.rows
    assert b.error.startswith("stopped after ") and b.rows == [Row("x", 2)] and not b.complete
    assert c.complete and c.error is None
    (tmp_path / "out/c.json").write_text("{")
    assert [gpu.is_done(name, tmp_path / "out", c.commit, True) for name in "abc"] == [False] * 3


def test_results_of_another_commit_or_size_are_measured_again(tmp_path):
    Result("b", tiny=True, commit="one", complete=True).save(tmp_path)
    asked = [("one", True), ("two", True), ("one", False)]
    assert [gpu.is_done("b", tmp_path, *each) for each in asked] == [True, False, False]
    assert not gpu.is_done("c", tmp_path, "one", True)


def test_a_measurement_that_fails_is_a_row_of_its_own(tmp_path):
    rows = []
    day = Day(torch.device("cpu"), True, tmp_path, rows.append)

    def fail(error):
        raise error

    assert day.measure("memory", lambda: fail(torch.OutOfMemoryError("CUDA out of memory. Tried\nmore"))) is None
    assert day.measure("bug", lambda: fail(ValueError("größer als | 2"))) is None
    assert day.measure("rate", lambda: None, (64, "pairs")) is not None
    assert [row.note for row in rows] == ["out of memory: CUDA out of memory. Tried", "ValueError: größer als | 2", ""]
    assert rows[2].unit == "pairs/s" and rows[2].value > 0


def test_the_table_says_where_figures_come_from_and_what_is_missing():
    good = Result("c", False, "abc", {"device": "H100"}, True, rows=[Row("x", 0.123456, "%", 3.25, "≤ 1 %", True, "n")])
    bad = Result("d", False, "abc+", {"device": "H100"}, error="stopped | early", rows=[Row("y", 12345.6, "pairs/s")])
    lines = table([good, bad]).splitlines()
    assert lines[:2] == ["H100, commit abc", "H100, commit abc+"]
    assert "| c | x | 0.123 % | 3.2 | ≤ 1 % | yes | n |" in lines
    assert "| d | y | 12,346 pairs/s |  |  |  |  |" in lines
    assert lines[-1] == "| d | **error** | – |  |  |  | stopped \\| early |"


def test_without_a_gpu_it_says_so(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    monkeypatch.setattr(gpu, "has_gpu", lambda: False)
    gpu.main()
    assert "no CUDA GPU: nothing is measured" in capsys.readouterr().out


def test_all_sections_together_keep_to_eight_minutes():
    assert sum(section.seconds for section in plan.SECTIONS.values()) <= 480


def test_the_commit_is_gits(tmp_path):
    assert commit_of(tmp_path) == "unknown"
    assert json.loads(json.dumps(commit_of(gpu.ROOT))) not in ("", "unknown")
