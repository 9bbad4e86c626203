"""What a composed config is checked for before anything is loaded."""

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError

from golden_noise.cli.validation import check
from golden_noise.errors import UserError


@pytest.mark.parametrize("job", ["collect", "train", "evaluate", "generate"])
def test_the_defaults_pass(compose_job, job):
    check(compose_job(job) if job != "generate" else compose_job(job, "prompt=a"))


@pytest.mark.parametrize("search", ["redenoise", "full_inversion", "zigzag", "best_of_n", "rescale"])
def test_the_searches_pass(compose_job, search):
    check(compose_job("collect", f"search={search}"))


@pytest.mark.parametrize(
    ("job", "override", "words"),
    [
        ("collect", "prompts.count=0", ">= 1"),
        ("collect", "prompts.count=null", "prompts.count=null must be an integer >= 1"),
        ("collect", "prompts.count=1.5", "must be an integer"),
        ("collect", "seed=-1", "from 0 to 4294967295"),
        ("collect", "seed=5000000000", "from 0 to 4294967295"),
        ("collect", "collection.shard_size=true", "must be an integer"),
        ("collect", "collection.batch_size=null", "must be an integer"),
        ("collect", "collection.margin=x", "must be a number"),
        ("collect", "search.rounds=0", ">= 1"),
        ("collect", "search.steps=1001", "from 1 to 1000"),
        ("collect", "search.denoising_guidance=nan", "must be a number"),
        ("collect", "data_dir=null", "must be text"),
        ("collect", "data_dir=", "not empty"),
        ("collect", "upload=s3://", "is no whole address: write it like s3://BUCKET/PREFIX"),
        ("collect", "upload=s3:/bucket/a", "is no whole address: write it like s3://BUCKET/PREFIX"),
        ("collect", "upload=s4://bucket/a", "fsspec knows no s4://"),
        ("train", "data_dir=s3:bucket/a", "is no whole address"),
        ("train", "data_dir='gs:///pairs-{000000..000009}.tar'", "is no whole address"),
        ("collect", "mode=x", "one of resume, extend, retry, overwrite"),
        ("generate", "pipeline.guidance=x", "must be a number"),
        ("generate", "pipeline.negative_prompt=null", "must be text"),
        ("generate", "seeds=[1,-2]", "must be a list, each an integer from 0 to 4294967295 or null"),
        ("generate", "noise=[standard,x]", "must be one of standard, golden, search, candidates or a list"),
        ("generate", "candidates.group=1", "must be an integer from 2 to 1024"),
        ("generate", "candidates.sigma=0", "must be a number above 0"),
        ("generate", "fit=x", "must be one of exact, tile, crop, resize or null"),
        ("generate", "pipeline.batch_size=2", "must be settings: collect, evaluate, generate"),
        ("train", "pipeline.model.memory.offload=x", "one of none, model, sequential"),
        ("train", "recipe.lr=fast", "must be a number >= 0"),
        ("train", "data.val_fraction=2", "from 0 to 1"),
        ("train", "data.num_workers=-1", ">= 0"),
        ("train", "num_threads=0", ">= 1"),
        ("train", "model.optimizer.lr=-1", ">= 0"),
        ("train", "trainer.max_epochs=1.5", "must be an integer"),
        ("train", "evaluation.prompts.count=0", ">= 1"),
        ("train", "evaluate=maybe", "true or false"),
        ("train objective=reward", "objective.guidance=nan", "must be a number or null"),
        ("train objective=guided", "objective.target_guidance=nan", "must be a number"),
        ("train objective=guided", "objective.target_guidance=x", "must be a number"),
        ("train objective=guided_stored", "objective.stored.steps=0", "must be an integer from 1 to 1000"),
        ("train objective=guided_stored", "objective.stored.guidance=nan", "must be a number"),
        ("collect", "collection.guided=3", "must be settings: steps, guidance"),
        ("train objective=reward", "objective.jacobian_steps=5", "at most the number of steps, 4, or null"),
        ("train objective=guided objective.steps=2", "objective.jacobian_steps=3", "at most the number of steps, 2"),
        ("collect search=reno", "search.jacobian_steps=5", "at most the number of steps, 4"),
        ("collect search=best_of_n", "search.preview_steps=5", "at most the number of steps, 4, or null"),
        ("collect search=best_of_n", "search.preview_steps=x", "an integer from 1 to 1000 or null"),
        (
            "collect search=chain +search@search.searches.best=best_of_n",
            "search.searches.best.preview_steps=5",
            "at most the number of steps, 4",
        ),
        (
            "evaluate +search@evaluation.searches.best=best_of_n",
            "evaluation.searches.best.preview_steps=5",
            "at most the number of steps, 4",
        ),
        ("collect search=reno", "search.lr=0", "must be a number above 0"),
        ("collect search=zero_order", "search.radius=nan", "must be a number above 0"),
    ],
)
def test_an_impossible_value_is_named(compose_job, job, override, words):
    with pytest.raises(UserError) as raised:
        check(compose_job(*job.split(), override))
    option = override.partition("=")[0]
    assert str(raised.value).startswith(f"{option}=")
    assert words in str(raised.value)


@pytest.mark.parametrize(
    "place",
    [
        "s3://BUCKET/PREFIX",
        "'s3://BUCKET/pairs-{000000..000099}.tar'",
        "https://HOST/pairs",
        "file:///pairs",
        "hf://datasets/ORG/NAME",
        "'pipe:ssh HOST cat pairs-{000000..000099}.tar'",
        "pairs",
    ],
)
def test_addresses_that_can_be_opened_pass(compose_job, place):
    check(compose_job("train", f"data_dir={place}"))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("+pipeline.model.vae={sorce: X, source: X}", "no setting pipeline.model.vae.sorce"),
        ("+pipeline.model.vae={revision: X}", "pipeline.model.vae.source is missing"),
        ("+pipeline.model.vae=X", "pipeline.model.vae=X must be settings: source, revision"),
        ("+pipeline.model.vae={source: 5}", "pipeline.model.vae.source=5 must be text"),
        ("+pipeline.model.vae={source: X, revision: 5}", "pipeline.model.vae.revision=5 must be text"),
        ("+pipeline.model.loras.x={source: null, weight_name: x}", "pipeline.model.loras.x.source=null must be text"),
        (
            "+pipeline.model.loras.x={source: X, strength: .inf}",
            "pipeline.model.loras.x.strength=.inf must be a number",
        ),
        ("+pipeline.model.loras.x={source: X, strenght: 1}", "no setting pipeline.model.loras.x.strenght"),
        ("+pipeline.model.lora={source: X}", "pipeline.model.lora={'source': 'X'} must be null: each of several"),
        ("+pipeline.model.scheduler={timestep_spacing: leading}", "pipeline.model.scheduler.name is missing"),
        ("+pipeline.model.memory.ofload=model", "no setting pipeline.model.memory.ofload"),
        ("pipeline.model.memory.vae_tiling=1", "pipeline.model.memory.vae_tiling=1 must be true or false"),
    ],
)
def test_keys_of_a_pipelines_parts_are_checked(compose_job, override, words):
    with pytest.raises(UserError) as raised:
        check(compose_job("collect", f"+{override}" if override.startswith("+") else override))
    assert str(raised.value).startswith(words)


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
        ({"SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "4"}, []),
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


SLURM = {"SLURM_NTASKS_PER_NODE": "4", "SLURM_NNODES": "2"}


@pytest.mark.parametrize(
    ("environment", "options", "devices", "num_nodes"),
    [
        ({}, [], 1, 1),
        ({}, ["devices=3"], 3, 1),
        ({}, ["trainer=ddp"], "auto", 1),
        ({}, ["trainer=ddp", "devices=4"], 4, 1),
        ({}, ["trainer=ddp_cpu"], 2, 1),
        ({}, ["trainer=ddp_cpu", "devices=3"], 3, 1),
        ({"LOCAL_WORLD_SIZE": "8", "GROUP_WORLD_SIZE": "2"}, ["trainer=ddp"], 8, 2),
        (SLURM | {"SLURM_NTASKS": "8"}, ["trainer=ddp"], 4, 2),
        ({"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "4"}, [], 4, 1),
        (SLURM | {"SLURM_NTASKS": "1"}, ["trainer=ddp"], "auto", 1),  # Lightning starts them
        (SLURM | {"SLURM_NTASKS": "8", "SLURM_JOB_NAME": "interactive"}, [], 1, 1),
        (SLURM | {"SLURM_NTASKS": "8", "SLURM_JOB_NAME": "interactive", "SLURM_STEP_NUM_TASKS": "8"}, [], 4, 2),
        (SLURM | {"SLURM_JOB_NAME": "bash", "SLURM_STEP_NUM_TASKS": "8", "SLURM_PTY_PORT": "7"}, ["devices=3"], 3, 1),
    ],
)
def test_as_many_processes_train_as_are_started(compose_job, monkeypatch, environment, options, devices, num_nodes):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    trainer = compose_job("train", *options).trainer
    assert (trainer.devices, trainer.num_nodes) == (devices, num_nodes)


@pytest.mark.parametrize(
    ("job", "option"),
    [("collect", "collection.batch_size"), ("evaluate", "evaluation.batch_size"), ("generate", "batch_size")],
)
def test_every_job_has_the_pipelines_batch_size_for_it(compose_job, job, option):
    sizes = {"collect": 11, "evaluate": 12, "generate": 13}
    config = compose_job(job, *(f"pipeline.batch_size.{name}={size}" for name, size in sizes.items()))
    assert OmegaConf.select(config, option) == sizes[job]


def test_devices_that_are_not_what_torchrun_starts_are_refused(compose_job, monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    check(compose_job("train", "trainer=ddp"))
    with pytest.raises(UserError, match="devices=3, but torchrun or SLURM start 2 processes here"):
        check(compose_job("train", "trainer=ddp", "devices=3"))


def test_slurms_tasks_need_their_number_on_a_node(compose_job, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "2")
    with pytest.raises(InterpolationResolutionError, match="add --ntasks-per-node=N"):
        check(compose_job("train", "trainer=ddp"))


def test_wandbs_own_variables_count_unless_the_command_line_says_otherwise(compose_job, monkeypatch):
    names = {"project": "WANDB_PROJECT", "name": "WANDB_NAME", "group": "WANDB_RUN_GROUP", "save_dir": "WANDB_DIR"}
    defaults = wandb(compose_job)
    assert [defaults[key] for key in names] == ["golden-noise", "test", "test", defaults.save_dir]
    assert defaults.tags == ["shapes"]
    for variable in names.values():
        monkeypatch.setenv(variable, f"of {variable}")
    monkeypatch.setenv("WANDB_TAGS", "a,b")
    found = wandb(compose_job)
    assert [found[key] for key in names] == [f"of {variable}" for variable in names.values()]
    assert found.tags == ["shapes", "a", "b"]
    given = wandb(compose_job, "logger.wandb.project=mine", "logger.wandb.group=ours", "logger.wandb.tags=[c]")
    assert (given.project, given.group, given.tags) == ("mine", "ours", ["c"])


def wandb(compose_job, *options):
    return compose_job("collect", "logger=wandb", "+name=test", *options).logger.wandb


def test_one_process_needs_no_name(compose_job, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "1")
    check(compose_job("train", "name='${now:%H-%M-%S}'"))


@pytest.mark.parametrize("other", ["strength=0.5", "noise_file=noise.npy"])
def test_candidates_are_of_the_noise_that_training_starts_from(compose_job, other):
    check(compose_job("generate", "prompt=a", "noise=candidates"))
    with pytest.raises(UserError, match=r"noise=candidates needs the noise of the seeds and strength=1"):
        check(compose_job("generate", "prompt=a", "noise=[golden,candidates]", other))
