"""From what Hydra composes to what a job gets: presets, groups without a choice, paths, misspelt settings."""

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from golden_noise.cli.arguments import prepare
from golden_noise.cli.conf import CONF, choices, groups
from golden_noise.cli.config import complete, job_config
from golden_noise.cli.schema import JOBS, reads
from golden_noise.cli.validation import check
from golden_noise.errors import UserError

PLACES = {"collect": ["data_dir=x"], "generate": ["prompt=a", "folder=x"], "evaluate": ["folder=x"]}
PLACES["train"] = ["folder=x", "data_dir=y"]


def checked(job, *arguments):
    """The config that a job gets with these arguments, if it may run with it."""
    found = job_config(job, arguments)
    check(found)
    return found


def whole_config(job, *arguments):
    """The config with Hydra's own part."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(job, prepare(arguments), return_hydra_config=True)


GROUPS = [(job, group) for job in JOBS for group in sorted({*groups(job)} - {"paths", "hydra"}) if reads(job, group)]


@pytest.mark.parametrize(("job", "group"), GROUPS)
def test_every_group_of_every_job_may_be_null_or_one_line_says_no(job, group):
    arguments = [f"{group}=null", *PLACES[job]]
    if group == "metric" and job in ("collect", "train"):
        with pytest.raises(UserError, match="select_by=auto needs a metric"):
            checked(job, *arguments)
        arguments.append("collection.select_by=null")
    if group == "metric" and job in ("train", "evaluate"):
        with pytest.raises(UserError, match="no metric is left"):
            checked(job, *arguments)
        return
    try:
        found = checked(job, *arguments)
    except UserError as error:
        name = group.replace("prompts@", "").replace("evaluation", "evaluation(.batch_size)?")
        assert re.match(f"{name} is missing: {job} needs it", str(error))
        assert group not in ("logger", "callbacks", "metric", "debug", "experiment", "local")
    else:
        assert not found.get(group)


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("preset", choices("experiment"))
def test_every_job_understands_every_preset(job, preset):
    needed = [] if job == "generate" else ["prompts=file", "prompts.path=x", "metric=pickscore"]
    needed += ["collection.select_by=null"] if job in ("collect", "train") else []
    found = checked(job, f"experiment={preset}", *needed, *PLACES[job])
    assert {*found} <= {*JOBS[job].model_fields}
    assert ("prompts" in found) == (job != "generate")


def test_a_job_has_only_what_it_reads():
    assert "model" not in job_config("evaluate") and "recipe" not in job_config("collect")
    assert "fabric" not in job_config("train") and "logger" not in job_config("generate")


@pytest.mark.parametrize(
    ("job", "argument", "others"),
    [
        ("generate", "model=unet", "train"),
        ("evaluate", "model.npnet.rank=3", "train"),
        ("evaluate", "recipe=shapes", "train"),
        ("generate", "logger=csv", "collect, train, evaluate"),
        ("train", "fabric.devices=2", "collect, evaluate, generate"),
    ],
)
def test_what_a_job_does_not_read_is_refused_on_the_command_line(job, argument, others):
    with pytest.raises(UserError) as raised:
        job_config(job, [argument])
    name = argument.partition("=")[0].partition(".")[0]
    assert str(raised.value) == f"{argument}: {job} does not read {name}, only {others}"


def test_a_set_of_prompts_that_was_chosen_stays():
    path = job_config("generate", ["experiment=published_sdxl", "prompts=file", "prompts.path=x"]).prompts.path
    assert path == "x"
    assert job_config("generate", ["prompts=shapes_test", "prompts.count=3"]).prompts.count == 3


def test_pairs_are_chosen_by_the_first_metric_unless_told_otherwise():
    file = ["pipeline=sdxl", "prompts=file", "prompts.path=x", "data_dir=y"]
    assert checked("collect", *file, "metric=[hpsv21,pickscore]").collection.select_by == "hpsv21"
    assert checked("collect", *file, "metric=aes", "collection.select_by=null").collection.select_by is None
    assert checked("collect", "experiment=shapes", "data_dir=y").collection.select_by is None
    assert checked("collect", "experiment=shapes_selected", "data_dir=y").collection.select_by == "reward"


# Paths and additions --------------------------------------------------------------------------------------


def test_the_home_folder_is_where_it_is(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    whole = whole_config("train", "paths.outputs=~/x", "name=y", "folder=z")
    assert whole.hydra.run.dir == "/home/me/x/train/y"
    HydraConfig.instance().set_config(whole)
    found = complete(whole, [])
    assert found.paths.outputs == "/home/me/x"
    assert Path(found.data_dir).is_relative_to("/home/me/x") and found.data.cache == "/home/me/x/cache"
    HydraConfig.instance().cfg = None
    assert job_config("collect", ["data_dir=~/pairs"]).data_dir == "/home/me/pairs"
    assert whole_config("generate", "prompt=a", "hydra.run.dir=~/r").hydra.run.dir == "/home/me/r"


@pytest.mark.parametrize("added", ["+trainer.max_steps=5", "+callbacks.a._target_=b.C", "+evaluation.images.x=y"])
def test_what_can_be_read_may_be_added(added):
    generated = ["evaluation=generated", "evaluation.folder=x", *PLACES["train"]]
    checked("train", added, *generated)


def test_what_an_interpolation_reads_may_be_added():
    found = checked("train", "+my.rank=3", "recipe.lora_rank='${my.rank}'", "model=denoiser_lora", *PLACES["train"])
    assert found.model.npnet.rank == 3


@pytest.mark.parametrize("added", ["+sede=3", "++sede=3", "+pipeline.heigth=3", "+collection.batchsize=3"])
def test_what_nothing_can_read_may_not_be_added(added):
    with pytest.raises(UserError, match=r"no setting .*did you mean"):
        checked("train", added, *PLACES["train"])


@pytest.mark.parametrize("group", ["local", "experiment"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("device: cpu", "lacks the first line '# @package _global_', so device had no effect"),
        ("# @package _global_\ndevcie: cpu", "no setting devcie: did you mean device"),
        ("# @package _global_\npipeline: {heigth: 3}", "no setting pipeline.heigth"),
        ("# @package _global_\npipeline: 3", "pipeline=3 must hold settings: choose one of dreamshaper"),
    ],
)
def test_a_mistake_in_the_users_own_files_is_named(group, text, words, tmp_path):
    with pytest.raises(UserError, match=words):
        own(group, text, tmp_path)


def test_this_machines_settings_count_in_every_job(tmp_path):
    text = """# @package _global_
defaults: [override /trainer: ddp, override /logger: csv, _self_]
device: cpu
trainer: {profiler: simple}
"""
    for job in JOBS:
        found = own("local", text, tmp_path, job)
        assert found.device == "cpu"
        assert ("trainer" in found) == (job == "train")


def own(group, text, folder, job="generate"):
    """The config of a job where a folder of the user's own has a file in a group."""
    (folder / group).mkdir(exist_ok=True)
    (folder / group / "default.yaml").write_text(text)
    chosen = [f"{group}=default"] if group != "local" else []
    return checked(job, f"hydra.searchpath=[file://{folder}]", *chosen, *PLACES[job])
