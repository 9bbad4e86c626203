"""What a composed config is checked for before anything is loaded."""

import pytest

from golden_noise.config import check
from golden_noise.errors import UserError


@pytest.mark.parametrize("job", ["collect", "train", "evaluate", "generate"])
def test_the_defaults_pass(compose_job, job):
    check(compose_job(job, "+prompt=a") if job != "generate" else compose_job(job, "prompt=a"))


@pytest.mark.parametrize("search", ["redenoise", "full_inversion", "zigzag", "best_of_n", "rescale"])
def test_the_searches_pass(compose_job, search):
    check(compose_job("collect", f"search={search}"))


@pytest.mark.parametrize(
    ("job", "override", "words"),
    [
        ("collect", "prompts.count=0", ">= 1"),
        ("collect", "prompts.count=null", "prompts.count=null must be a whole number"),
        ("collect", "prompts.count=1.5", "whole number"),
        ("collect", "seed=-1", "from 0 to 4294967295"),
        ("collect", "seed=5000000000", "from 0 to 4294967295"),
        ("collect", "collection.shard_size=true", "whole number"),
        ("collect", "collection.batch_size=null", "whole number"),
        ("collect", "collection.margin=x", "must be a number"),
        ("collect", "search.rounds=0", ">= 1"),
        ("collect", "search.steps=1001", "from 1 to 1000"),
        ("collect", "search.denoising_guidance=nan", "must be a number"),
        ("collect", "data_dir=null", "must be a path"),
        ("collect", "data_dir=", "must be a path"),
        ("generate", "pipeline.guidance=x", "must be a number"),
        ("generate", "npnet=5", "must be a path"),
        ("generate", "pipeline.negative_prompt=5", "quote it twice"),
        ("generate", "pipeline.negative_prompt=null", "is no text"),
        ("train", "data.val_fraction=2", "from 0 to 1"),
        ("train", "data.num_workers=-1", ">= 0"),
        ("train", "num_threads=0", ">= 1"),
        ("train", "model.optimizer.lr=-1", ">= 0"),
        ("train", "trainer.max_epochs=1.5", "whole number"),
        ("train", "evaluation.prompts.count=0", ">= 1"),
        ("train", "evaluate=maybe", "true or false"),
    ],
)
def test_an_impossible_value_is_named(compose_job, job, override, words):
    with pytest.raises(UserError) as raised:
        check(compose_job(job, override))
    option = override.partition("=")[0]
    assert str(raised.value).startswith(f"{option}=")
    assert words in str(raised.value)


def test_a_schedule_that_cannot_be_inverted_is_refused_where_a_search_inverts(compose_job):
    spacing = "pipeline.model.scheduler={name: EulerDiscreteScheduler, timestep_spacing: linspace}"
    choices = ["pipeline=sdxl", "prompts=file", "prompts.path=x.txt", "metric=pickscore", spacing]
    with pytest.raises(UserError, match="linspace cannot be inverted"):
        check(compose_job("collect", *choices))
    check(compose_job("collect", *choices, "search=rescale"))


@pytest.mark.parametrize(
    ("environment", "options"),
    [
        ({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2"}, []),
        ({"SLURM_NTASKS": "8"}, []),
        ({}, ["trainer.num_nodes=2"]),
    ],
)
def test_processes_that_are_started_from_outside_need_a_name(compose_job, monkeypatch, environment, options):
    """Each would name its run folder by its own clock."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    check(compose_job("train", *options))
    with pytest.raises(UserError, match="add name=NAME"):
        check(compose_job("train", *options, "name='${now:%H-%M-%S}'"))


def test_one_process_needs_no_name(compose_job, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "1")
    check(compose_job("train", "name='${now:%H-%M-%S}'"))
