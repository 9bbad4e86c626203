"""Several processes on one job: each part of the work is done once, and everyone sees all of it finished."""

import json
import threading

import pytest

from golden_noise.cli.config import job_config
from golden_noise.errors import UserError
from golden_noise.evaluation.job import evaluate
from golden_noise.sharing.claims import Claims, alone, is_lock, locked
from golden_noise.sharing.fabric import shared_batches
from tests.forked import run_script


def test_batches_cover_everything_once(tmp_path):
    assert [list(batch) for batch in shared_batches(tmp_path, 7, 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(shared_batches(tmp_path, 0, 3)) == []
    assert all(is_lock(path.name) for path in tmp_path.iterdir())


def test_two_workers_do_every_batch_once_and_both_see_all_of_them(tmp_path):
    done: list[int] = []
    seen: list[list[int]] = []

    def work():
        mine = []
        for batch in shared_batches(tmp_path, 40, 1):
            if batch.start not in done:  # nobody else can be at it
                done.append(batch.start)
            mine.append(batch.start)
        seen.append(mine)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert sorted(done) == list(range(40))
    assert [sorted(mine) for mine in seen] == [list(range(40))] * 3


def test_what_another_worker_is_at_is_waited_for(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("golden_noise.sharing.claims.POLL", 0.01)
    other = Claims(tmp_path, "batch")
    batches = shared_batches(tmp_path, 2, 1)
    with other:
        assert other.take(1)
        assert next(batches) == range(0, 1)
        threading.Timer(0.2, lambda: other.finish(1)).start()
        assert next(batches) == range(1, 2)
    assert list(batches) == []
    assert capsys.readouterr().err == "other processes work on the rest: waiting for them\n"


def test_works_of_other_names_do_not_meet(tmp_path):
    with Claims(tmp_path, "one") as one, Claims(tmp_path, "two") as two:
        assert one.take(0) and two.take(0)
        with pytest.raises(UserError, match="another process works in"), alone(tmp_path, "one"):
            pass


def test_a_folders_lock_is_held_by_one_at_a_time(tmp_path):
    order = []

    def wait():
        with locked(tmp_path):
            order.append("second")

    second = threading.Thread(target=wait)
    with locked(tmp_path):
        second.start()
        second.join(0.2)
        order.append("first")
    second.join(30)
    assert order == ["first", "second"]


def test_a_batch_is_nobody_elses_until_its_work_is_done(tmp_path):
    batches = shared_batches(tmp_path, 2, 1)
    with Claims(tmp_path, "batch") as other:
        assert next(batches) == range(0, 1)
        assert not other.take(0)
        assert next(batches) == range(1, 2)
        assert other.take(0) and not other.take(1)
        assert list(batches) == []
        assert other.take(1)


def test_claims_of_killed_processes_are_swept_away(tmp_path):
    (tmp_path / ".batch-000007.claim").touch()  # they had smaller batches
    assert len(list(shared_batches(tmp_path, 4, 2))) == 2
    assert not list(tmp_path.glob("*.claim"))


def test_two_processes_under_fabric_draw_what_one_does(tiny_sdxl, tmp_path):
    small = ["prompts=shapes_test", "prompts.count=12", "pipeline.steps=2", "search=redenoise", "device=cpu"]
    small += [f"pipeline.model.source={tiny_sdxl}", "logger=csv", f"paths.outputs={tmp_path}", "name=two"]
    small += ["evaluation.methods=[standard,search]", "evaluation.batch_size=3", "~metric.reward"]
    two = run_script(tmp_path, "evaluate.py", *small, "fabric.devices=2")
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("report:") == 1
    evaluate(job_config("evaluate", [*small, f"folder={tmp_path}/evaluate/one"]))
    folders = [tmp_path / "evaluate" / name for name in ("one", "two")]
    pictures = [{path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.png")} for folder in folders]
    assert len(pictures[0]) == 24 and pictures[0] == pictures[1]
    results = [json.loads((folder / "results.json").read_text()) for folder in folders]
    assert results[0]["methods"] == results[1]["methods"]
