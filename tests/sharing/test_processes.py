"""Jobs of several processes of which some never come."""

import time

import pytest
from lightning.fabric.plugins.environments import LightningEnvironment, SLURMEnvironment
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError

from golden_noise.collecting.job import collect_job
from golden_noise.sharing.environments import environments
from golden_noise.sharing.processes import is_first
from tests.forked import start_script

SLURM = {
    "SLURM_JOB_ID": "77",
    "SLURM_NTASKS": "2",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_NNODES": "1",
    "SLURM_JOB_NUM_NODES": "1",
    "SLURM_NODELIST": "localhost",
    "SLURM_JOB_NAME": "c.sh",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}
TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "WORLD_SIZE": "2",
    "LOCAL_WORLD_SIZE": "2",
    "RANK": "0",
    "LOCAL_RANK": "0",
    "GROUP_RANK": "0",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29517",
}


@pytest.mark.parametrize(
    ("variables", "kinds"),
    [({}, []), (TORCHRUN, []), (SLURM, [SLURMEnvironment]), (SLURM | TORCHRUN, []),
     (SLURM | {"SLURM_NTASKS": "1"}, [LightningEnvironment])],
)  # fmt: skip
def test_slurm_starts_several_tasks_and_lightning_never_requeues(monkeypatch, variables, kinds):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = environments()
    assert [type(each) for each in found] == kinds
    assert not any(each.auto_requeue for each in found if isinstance(each, SLURMEnvironment))


IMPATIENT = """
import runpy
from golden_noise.sharing import processes
processes.PATIENCE = 0.5
runpy.run_path("collect.py", run_name="__main__")
"""


@pytest.mark.parametrize(("environment", "start"), [(SLURM, "srun"), (TORCHRUN, "torchrun")], ids=["slurm", "torchrun"])
def test_a_process_that_waits_for_others_says_so(environment, start, tiny_sdxl, tmp_path):
    options = [f"data_dir={tmp_path}/pairs", "device=cpu", f"pipeline.model.source={tiny_sdxl}", "prompts.count=4"]
    (tmp_path / "impatient.py").write_text(IMPATIENT)
    waiting = start_script(tmp_path, str(tmp_path / "impatient.py"), *options, environment=environment)
    lines, deadline = [], time.monotonic() + 100
    while not lines and waiting.exitcode is None and time.monotonic() < deadline:
        time.sleep(0.1)
        said = (tmp_path / "stderr").read_text("utf-8") if (tmp_path / "stderr").exists() else ""
        lines = [line for line in said.splitlines(keepends=True) if line.startswith("waiting") and line.endswith("\n")]
    waiting.kill()
    waiting.join()
    (line,) = lines
    assert line.startswith("waiting for all 2 processes of this job") and f"start them with {start}" in line
    assert "fabric.devices=1" in line


def test_one_process_collects_alone_whatever_slurm_has_room_for(compose_job, monkeypatch, tmp_path):
    """What the line says."""
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    alone = ["fabric.devices=1", "fabric.num_nodes=1"]
    start = time.perf_counter()
    assert collect_job(compose_job("collect", "prompts.count=4", "pipeline.steps=2", *alone))
    assert (tmp_path / "pairs/pairs-000000.tar").exists() and time.perf_counter() - start < 60


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "8", "LOCAL_RANK": "0", "WORLD_SIZE": "9"}, False),
        ({"RANK": "8"}, True),  # left over: nobody started this process as one of several
        ({"LOCAL_RANK": "1"}, False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False),
        ({"SLURM_PROCID": "3"}, False),
    ],
)
def test_one_process_is_the_first(monkeypatch, environment, first):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_first() == first


@pytest.mark.parametrize("name", ["LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "SLURM_NTASKS_PER_NODE", "SLURM_NNODES"])
@pytest.mark.parametrize("text", ["abc", "1-2", "0"])
def test_a_count_that_is_no_number_is_named(compose_job, monkeypatch, name, text):
    if name.startswith("SLURM"):
        monkeypatch.setenv("SLURM_NTASKS", "4")
        monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "4")
    monkeypatch.setenv(name, text)
    for job, group in {"train": "trainer", "collect": "fabric"}.items():
        with pytest.raises(InterpolationResolutionError, match=f"environment's {name}={text} is not a number"):
            OmegaConf.to_container(compose_job(job)[group], resolve=True)
