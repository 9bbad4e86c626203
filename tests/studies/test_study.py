"""What the studies under experiments/ are made of, and that their pages show what was measured."""

import csv
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler

from experiments.__main__ import STUDIES
from experiments.best_of_n.run import chosen
from experiments.study import averaged, each, gain, interval, markdown, mean, once
from experiments.transfer.models import straight
from golden_noise.pipelines.schedules import DDIM

ROOT = Path(__file__).parents[2]
TABLES = sorted((ROOT / "experiments").glob("*/*.csv"))


@pytest.mark.parametrize("table", TABLES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_page_shows_what_was_measured(table):
    page = (table.parent / "README.md").read_text("utf-8").splitlines()
    with table.open(newline="") as file:
        lines = markdown(list(csv.reader(file)))
    assert [line for line in lines if line not in page] == []


def test_every_study_has_a_page_a_table_and_a_place_in_the_index():
    index = (ROOT / "experiments/README.md").read_text("utf-8")
    studies = {path.parent.name for path in (ROOT / "experiments").glob("*/run.py")}
    assert studies == set(STUDIES)
    for name in studies:
        assert f"({name}/README.md)" in index
        assert f"python -m experiments.{name}.run" in (ROOT / f"experiments/{name}/README.md").read_text("utf-8")
        assert (ROOT / f"experiments/{name}/results.csv").is_file()


def test_several_processes_make_a_result_once(tmp_path):
    result, made = tmp_path / "run/done", []

    def make():
        made.append(1)
        time.sleep(0.2)
        result.parent.mkdir()
        result.touch()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: once(result, make), range(4)))
    assert made == [1]


def test_a_result_that_failed_is_made_again(tmp_path):
    with pytest.raises(subprocess.CalledProcessError):
        once(tmp_path / "run/done", lambda: subprocess.run(["false"], check=True))
    made = []
    once(tmp_path / "run/done", lambda: made.append(1))
    assert made == [1]


def test_trainings_are_averaged_item_by_item():
    first, second = {("a", "1"): 1.0, ("b", "2"): 0.0}, {("a", "1"): 0.0, ("b", "2"): 0.0}
    assert averaged([first, second]) == {("a", "1"): 0.5, ("b", "2"): 0.0}
    assert mean(first) == 0.5
    with pytest.raises(AssertionError):
        averaged([first, {("c", "1"): 1.0}])
    with pytest.raises(AssertionError):
        gain(first, {("c", "1"): 1.0})


def test_figures_are_written_with_their_signs():
    plain = {(f"prompt {i}", str(i)): float(i % 2) for i in range(40)}
    better = dict.fromkeys(plain, 1.0)
    assert interval(gain(plain, better)).startswith("+0.500 [+0.3")
    assert each([0.1, -0.25], "+.2f") == "+0.10 -0.25"


def write_scores(folder, rows):
    with (folder / "results.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "seed", "method", "strict", "reward"])
        writer.writerows(rows)


def test_the_reward_chooses_among_the_noises_of_a_caption(tmp_path):
    strict = {"red": [0, 1, 1, 0, 1], "blue": [1, 0, 0, 0]}
    reward = {"red": [0.1, 0.9, 0.3, 0.8, 5.0], "blue": [0.2, 0.1, 0.4, 0.3]}
    rows = [
        (prompt, f"{prompt}{i}", "standard", strict[prompt][i], reward[prompt][i])
        for i in range(5)
        for prompt in strict
        if i < len(strict[prompt])
    ]
    write_scores(tmp_path, rows)
    assert list(chosen(tmp_path, "standard", 1).values()) == [0, 1, 1, 0, 1, 1, 0, 0, 0]
    two = {("red", "red0"): 1.0, ("red", "red2"): 0.0, ("blue", "blue0"): 1.0, ("blue", "blue2"): 0.0}
    assert chosen(tmp_path, "standard", 2) == two  # the fifth red one is left over
    assert list(chosen(tmp_path, "standard", 4).values()) == [1.0, 0.0]


def test_the_student_is_to_go_where_the_teacher_went():
    schedule = DDIM(DDIMScheduler(timestep_spacing="leading", steps_offset=1, clip_sample=False).config)
    start, middle, end = schedule.timesteps(10).tolist()[1:4]
    latents, first, second = torch.randn(3, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    reached = schedule.move(schedule.move(latents, first, start, middle), second, middle, end)
    wanted = straight(schedule, latents, reached, start, end)
    torch.testing.assert_close(schedule.move(latents, wanted, start, end), reached, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_study_runs_through():
    """With a handful of prompts, from nothing; what is in the repository stays as it is."""
    shutil.rmtree(ROOT / "outputs/smoke", ignore_errors=True)
    before = {path: path.read_bytes() for path in TABLES}
    command = [sys.executable, "-m", "experiments", "--smoke"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert {path: path.read_bytes() for path in TABLES} == before
    for name in STUDIES:
        assert (ROOT / "outputs/smoke" / name / "results.csv").is_file()
