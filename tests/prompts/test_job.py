"""What a job says of its prompts, and which noises each job draws for the same file."""

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from golden_noise.cli.config import job_config
from golden_noise.prompts.job import announce


@pytest.fixture
def prompts_of(write):
    """The prompts of a job for a file of 20 captions, one of them twice."""
    path = write("few.txt", "\n".join([*(f"caption {i}" for i in range(19)), "caption 0"]))

    def compose_prompts(job, where="prompts", *overrides):
        options = ["prompts=file", f"prompts.path={path}"]
        options += [] if job == "collect" else ["folder=x", "name=x"]
        if where == "evaluation.prompts" and job == "train":
            options += ["prompts@evaluation.prompts=file", f"evaluation.prompts.path={path}"]
        config = job_config(job, [*options, *overrides])
        return instantiate(OmegaConf.select(config, where))

    return compose_prompts


def test_no_job_is_judged_on_noises_that_another_learns_from(prompts_of):
    learning = [prompts_of("collect"), prompts_of("train")]
    judging = [prompts_of("evaluate"), prompts_of("evaluate", "evaluation.prompts"), prompts_of("generate")]
    judging.append(prompts_of("train", "evaluation.prompts"))
    assert learning[0] == learning[1]
    assert all(judging[0] == other for other in judging)
    assert [prompt.text for prompt in learning[0]] == [prompt.text for prompt in judging[0]]
    assert len({prompt.seed for prompts in (learning[0], judging[0]) for prompt in prompts}) == 40


def test_the_seed_of_a_job_draws_other_noises(prompts_of):
    for job, option in {"collect": "seed=5", "evaluate": "seed=5", "train": "data_seed=5"}.items():
        assert not {p.seed for p in prompts_of(job)} & {p.seed for p in prompts_of(job, "prompts", option)}


def test_a_line_says_what_is_there(write, capsys):
    path = write("few.csv", "caption\na red circle\na blue square\n" + "x" * 100)
    node = OmegaConf.create({"_target_": "golden_noise.prompts.read_prompts", "path": path, "repeats": 2})
    prompts = instantiate(node)
    announce([prompt for prompt in prompts for _ in range(3)], node, noises=3)
    written = capsys.readouterr()
    expected = f"3 prompts from {path}, 6 noises each (first: 'a red circle'; last: '{'x' * 57}...')\n"
    assert (written.out, written.err) == ("", expected)
    announce(prompts[:1], OmegaConf.create({"split": "test"}))
    assert capsys.readouterr().err.startswith("1 prompt (first: '")
    announce(prompts, None)
    assert capsys.readouterr().err == ""
