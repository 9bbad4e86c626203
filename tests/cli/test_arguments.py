"""The command line as Hydra reads it: text is text, none is none."""

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import assume, example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from golden_noise.cli.arguments import prepare
from golden_noise.cli.config import job_config
from golden_noise.errors import UserError


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
    (argument,) = prepare([f"{key}={text}"])
    assert value_of(argument) == text
    assert prepare([argument]) == [argument]  # ranks and jobs of a sweep get it once more


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1))
@example("\\")
@example("a\\'")
@example("'a' and 'b'")
def test_any_text_survives(text):
    assume(text == text.strip() and "${" not in text and text.lower() != "null")
    assume(not (len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"))  # in quotation marks already
    assume("\\" not in text or value_of(prepare([f"npnet={text}"])[0]) == text)  # escaped by hand
    assert value_of(prepare([f"npnet={text}"])[0]) == text


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
    config = job_config("generate", [f"{key}={text}", "seed=3", "folder=x"])
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
    assert prepare([argument]) == [argument]


def test_an_interpolation_in_a_path_stays_one():
    config = job_config("train", ["data_dir=${paths.outputs}/a=b", "paths.outputs=x", "folder=z"])
    assert config.data_dir == "x/a=b"


@pytest.mark.parametrize(
    ("argument", "seen"),
    [
        ("npnet=a,b", "npnet=a,b"),
        ("npnet=1,b", 'npnet="1",b'),
        ("npnet=1e5,b", 'npnet="1e5",b'),
        ("name=2024", 'name="2024"'),
        ("prompts.path=prompts (1).txt", 'prompts.path="prompts (1).txt"'),
        ("npnet=choice(a,b)", "npnet=choice(a,b)"),
        ("seed=1,2", "seed=1,2"),
        ("prompt=a,b", "prompt=a,b"),
        ("logger=null", "logger=[]"),
    ],
)
def test_in_a_multirun_commas_separate_jobs(argument, seen):
    assert prepare([argument], multirun=True) == [seen]


def test_what_could_be_either_is_shown_in_quotation_marks():
    with pytest.raises(UserError) as raised:
        prepare(["npnet=STUDY/model=unet,seed=1"], multirun=True)
    assert str(raised.value).startswith("npnet=STUDY/model=unet,seed=1: ")
    shown = str(raised.value).rpartition("write one text as ")[2]
    (argument,) = shlex.split(shown)
    assert prepare([argument], multirun=True) == [argument]


@pytest.mark.parametrize("argument", ["a b", "red", "=3", "a b=3"])
def test_what_is_no_setting_is_named(argument):
    with pytest.raises(UserError, match="is not a setting: give KEY=VALUE") as raised:
        prepare(["seed=1", argument])
    assert argument in str(raised.value)


@pytest.mark.parametrize("value", ["[1,2", "a,(b", "a(b", "it's"])
def test_what_hydra_cannot_read_is_text(value):
    """What else the setting must be, the schema says."""
    for key in ("seeds", "pipeline.latent_shape", "model"):
        (argument,) = prepare([f"{key}={value}"])
        assert value_of(argument) == value


def test_a_choice_that_looks_like_a_number_is_a_name():
    assert prepare(["search=5", "trainer=true", "logger=null", "logger=[csv,wandb]", "search=a,5"], multirun=True) == [
        'search="5"',
        'trainer="true"',
        "logger=[]",
        "logger=[csv,wandb]",
        'search=a,"5"',
    ]


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("name=null", "name=null must be text"),
        ("paths.outputs=null", "paths.outputs=null must be text"),
        ("pipeline=_base", "pipeline=_base is none of the choices: dreamshaper, "),
        ("hparams_search=_optuna", "none of the choices: network, recipe"),
    ],
)
def test_what_no_job_can_use_is_refused(argument, words):
    with pytest.raises(UserError, match=words):
        prepare([argument])
