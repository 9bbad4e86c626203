"""The command line as Hydra reads it: text is text, none is none."""

import shlex
from copy import deepcopy
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import assume, example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf, open_dict, read_write

from golden_noise.cli import completion
from golden_noise.cli.arguments import groups, prepare
from golden_noise.cli.completion import complete
from golden_noise.cli.conf import CONF
from golden_noise.cli.validation import check
from golden_noise.errors import UserError


def composed(job, *arguments):
    """The config that a job gets with these arguments."""
    whole = whole_config(job, *arguments)
    config = deepcopy(whole)
    with read_write(config), open_dict(config):
        del config["hydra"]
    HydraConfig.instance().set_config(whole)
    complete(config)
    return config


@pytest.fixture(autouse=True)
def no_hydra():
    yield
    HydraConfig.instance().cfg = None


def whole_config(job, *arguments):
    """The config with Hydra's own part."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(job, prepare([*arguments], job), return_hydra_config=True)


def value_of(argument):
    """What Hydra makes of the value of one argument."""
    return OverridesParser.create().parse_override(argument).value()


NAMES = [
    "2024_05_01",
    "1e5",
    "123",
    "true",
    "outputs/train/STUDY/model=unet,seed=1",
    "prompts (1).txt",
    "café.txt",
    "it's.txt",
    'a"b.txt',
    "a#b.txt",
    "x[1].txt",
    "{a}.txt",
    "a, b",
    "~/x",
    "choice(a,b)",
    "pipe:ssh HOST cat PATH/pairs-{000000..000099}.tar",
]


@pytest.mark.parametrize("text", NAMES)
@pytest.mark.parametrize(
    "key", ["name", "npnet", "prompts.path", "+evaluation.images.x", "paths.outputs", "data.cache"]
)
def test_a_name_or_path_is_any_text(key, text):
    (argument,) = prepare([f"{key}={text}"], "train")
    assert value_of(argument) == text
    assert prepare([argument], "train") == [argument]  # ranks and jobs of a sweep get it once more


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1))
@example("\\")
@example("a\\'")
@example("'a' and 'b'")
def test_any_text_survives(text):
    assume(text == text.strip() and "${" not in text and text.lower() != "null")
    assume(not (len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"))  # in quotation marks already
    assume("\\" not in text or value_of(prepare([f"npnet={text}"], "train")[0]) == text)  # escaped by hand
    assert value_of(prepare([f"npnet={text}"], "train")[0]) == text


@pytest.mark.parametrize(
    "text",
    [
        "a, b",
        "a cat [photo]: 50% {x}",
        "say \"hi\", 'ho'",
        "a\\",
        "5",
        "true",
        "${a}",
        "a=b",
        "  x ",
        "ein Würfel",
    ],
)
@pytest.mark.parametrize("key", ["prompt", "pipeline.negative_prompt"])
def test_a_prompt_is_any_text(key, text):
    config = composed("generate", f"{key}={text}", "seed=3", "folder=x")
    assert (OmegaConf.select(config, key), config.seed) == (text, 3)


@pytest.mark.parametrize(
    "argument",
    [
        "prompt='a, b'",
        'prompt="a \\" b"',
        "npnet=null",
        "prompt=null",
        "pipeline.negative_prompt=null",
        "npnet='a b'",
        r"npnet=a\=b\,c",
        "name=${now:%H-%M}",
        "evaluation.images={standard: a, npnet: b}",
        "seeds=[1,2]",
        "~metric.reward",
        "logger=[csv,wandb]",
    ],
)
def test_what_hydra_reads_as_it_is_meant_stays(argument):
    assert prepare([argument, "--config-dir", "x y"], "generate") == [argument, "--config-dir", "x y"]


def test_an_interpolation_in_a_path_stays_one():
    config = composed("train", "data_dir=${paths.outputs}/a=b", "paths.outputs=x", "folder=z")
    assert config.data_dir == "x/a=b"


@pytest.mark.parametrize(
    ("argument", "seen"),
    [
        ("npnet=a,b", "npnet=a,b"),
        ("npnet=1,b", 'npnet="1",b'),
        ("name=2024", 'name="2024"'),
        ("prompts.path=prompts (1).txt", 'prompts.path="prompts (1).txt"'),
        ("npnet=choice(a,b)", "npnet=choice(a,b)"),
        ("seed=1,2", "seed=1,2"),
        ("prompt=a,b", "prompt=a,b"),
        ("logger=null", "logger=[]"),
    ],
)
def test_in_a_multirun_commas_separate_jobs(argument, seen):
    assert prepare(["-m", argument], "train") == ["-m", seen]


def test_what_could_be_either_is_shown_in_quotation_marks():
    with pytest.raises(UserError) as raised:
        prepare(["-m", "npnet=STUDY/model=unet,seed=1"], "train")
    assert str(raised.value).startswith("npnet=STUDY/model=unet,seed=1: ")
    shown = str(raised.value).rpartition("written ")[2]
    (argument,) = shlex.split(shown)
    assert prepare(["-m", argument], "train") == ["-m", argument]


@pytest.mark.parametrize(
    "argument", ["seed=a,(b", "a b", "red", "=3", "model=a(b", "pipeline.latent_shape=[1,2", "a b=3"]
)
def test_what_hydra_cannot_read_is_named(argument):
    with pytest.raises(UserError) as raised:
        prepare(["seed=1", argument], "train")
    assert argument in str(raised.value)


# Groups ---------------------------------------------------------------------------------------------------

GROUPS = [(job, group) for job in ("collect", "train", "evaluate", "generate") for group in groups(job)]


@pytest.mark.parametrize(("job", "group"), GROUPS)
def test_every_group_of_every_job_may_be_null_or_one_line_says_no(job, group):
    """What can go wrong later with a group that is empty is the job's to say; see test_cli.py."""
    if group in ("paths", "hydra"):
        return
    common = {"generate": ["prompt=a", "folder=x"], "evaluate": ["folder=x"], "train": ["folder=x"]}.get(job, [])
    if group == "metric":
        common += ["collection.select_by=null"] if job in ("collect", "train") else []
    try:
        config = composed(job, f"{group}=null", *common)
    except UserError as error:
        assert str(error).startswith(f"{group}=null: {job}.py cannot do without: choose one of ")
        assert group not in ("logger", "callbacks", "metric", "debug", "experiment", "local")
        return
    assert not config.get(group)
    check(config)


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("search=5", "5 is no choice of search: best_of_n"),
        ("trainer=true", "True is no choice of trainer: ddp"),
        ("logger=csv,null", "null is no choice of logger: csv, wandb"),
        ("memory=null", "train.py has no group memory"),
    ],
)
def test_what_is_no_choice_is_named(argument, words):
    with pytest.raises(UserError, match=words):
        prepare(["-m", argument], "train")


PRESETS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("preset", PRESETS)
def test_evaluate_ignores_what_it_has_no_use_for_in_a_preset(preset):
    options = ["prompts=file", "prompts.path=x", "metric=pickscore", "folder=x"]
    check(composed("evaluate", f"experiment={preset}", *options))


@pytest.mark.parametrize("preset", PRESETS)
def test_generate_ignores_what_it_has_no_use_for_in_a_preset(preset):
    config = composed("generate", f"experiment={preset}", "prompt=a red circle", "folder=x")
    assert "prompts" not in config and "model" not in config and "trainer" not in config and "logger" not in config
    check(config)


def test_a_set_of_prompts_that_was_chosen_stays():
    assert (
        composed("generate", "experiment=published_sdxl", "prompts=file", "prompts.path=x", "folder=x").prompts.path
        == "x"
    )
    assert composed("generate", "prompts=shapes_test", "prompts.count=3", "folder=x").prompts.count == 3


# Paths and additions --------------------------------------------------------------------------------------


def test_the_home_folder_is_where_it_is(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    config = composed("train", "paths.outputs=~/x", "name=y", "folder=z")
    assert config.paths.outputs == "/home/me/x"
    assert Path(config.data_dir).is_relative_to("/home/me/x") and config.data.cache == "/home/me/x/cache"
    assert whole_config("train", "paths.outputs=~/x", "name=y").hydra.run.dir == "/home/me/x/train/y"
    assert composed("collect", "data_dir=~/pairs").data_dir == "/home/me/pairs"
    assert whole_config("generate", "prompt=a", "hydra.run.dir=~/r").hydra.run.dir == "/home/me/r"


@pytest.mark.parametrize("added", ["+trainer.max_steps=5", "+callbacks.a._target_=b.C", "+evaluation.images.x=y"])
def test_what_can_be_read_may_be_added(added):
    composed("train", added, "evaluation=generated", "evaluation.folder=x", "folder=x")


@pytest.mark.parametrize("added", ["+sede=3", "++sede=3", "+pipeline.heigth=3", "+collection.batchsize=3"])
def test_what_nothing_can_read_may_not_be_added(added):
    with pytest.raises(UserError, match=r"no setting .*did you mean"):
        composed("train", added, "folder=x")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("device: cpu", "lacks the first line '# @package _global_', so device had no effect"),
        ("# @package _global_\ndevcie: cpu", "no setting devcie"),
        ("# @package _global_\npipeline: {heigth: 3}", "no setting pipeline.heigth"),
        ("# @package _global_\npipeline: 3", "pipeline=3 must hold settings"),
    ],
)
def test_a_mistake_in_this_machines_settings_is_named(text, words, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=words):
        local(text, tmp_path, monkeypatch)


def test_this_machines_settings_count_in_every_job(tmp_path, monkeypatch):
    text = """# @package _global_
defaults: [override /trainer: ddp, override /logger: csv, _self_]
device: cpu
trainer: {profiler: simple}
"""
    for job in ("collect", "train", "evaluate", "generate"):
        config = local(text, tmp_path, monkeypatch, job)
        assert config.device == "cpu"
        assert ("trainer" in config) == (job == "train")


def local(text, folder, monkeypatch, job="generate"):
    """The config of a job where conf/local/default.yaml holds a text."""
    (folder / "local").mkdir(exist_ok=True)
    (folder / "local/default.yaml").write_text(text)
    monkeypatch.setattr(completion, "LOCAL", folder / "local/default.yaml")
    return composed(job, f"hydra.searchpath=[file://{folder}]", "folder=x" if job != "collect" else "data_dir=x")
