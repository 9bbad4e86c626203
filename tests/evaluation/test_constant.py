"""The control `constant`: searched once on prompts to learn from, kept, and never chosen by what it is judged on."""

import json

import pytest
import torch
from hydra.utils import instantiate

from golden_noise.cli.validation import check
from golden_noise.errors import UserError
from golden_noise.evaluation.cache import Cache
from golden_noise.evaluation.choices import check_evaluation
from golden_noise.evaluation.constant import choose_constant, learning_prompts, mean_scores
from golden_noise.evaluation.job import evaluate
from golden_noise.evaluation.shuffling import other_prompts
from golden_noise.shapes.prompts import draw_prompts

SMALL = ["prompts.count=16", "pipeline.steps=2", "evaluation.batch_size=6", "~metric.soft", "~metric.strict"]
SEARCH = [*SMALL, "evaluation.methods=[standard,constant]", "evaluation.constant.factors=[0.5,0.9]"]


@pytest.fixture
def caches(tmp_path):
    return lambda: list((tmp_path / "outputs/constants").glob("*.jsonl"))


def test_the_best_factor_is_searched_once_and_reported(compose_job, caches, tmp_path):
    first = evaluate(compose_job("evaluate", *SEARCH))
    found = first["constant"]
    assert (found["metric"], found["prompts"], list(found["scores"])) == ("reward", 10, ["0.5", "0.9", "1"])
    assert found["scores"][f"{found['factor']:g}"] == max(found["scores"].values())
    assert json.loads((tmp_path / "run/results.json").read_text())["constant"] == found
    variances = {name: entry["mean"] for name, entry in first["noise"]["variance"]["methods"].items()}
    assert variances["constant"] == pytest.approx(found["factor"] ** 2 * variances["standard"], rel=1e-4)
    (cache,) = caches()
    text = cache.read_text()
    assert len(text.splitlines()) == 30  # 10 prompts with 3 factors

    again = evaluate(compose_job("evaluate", *SEARCH, f"folder={tmp_path}/other"))
    assert (again["constant"], cache.read_text()) == (found, text)
    evaluate(compose_job("evaluate", *SEARCH, f"folder={tmp_path}/third", "pipeline.guidance=3"))
    assert len(caches()) == 2 and cache.read_text() == text  # of other settings


def test_a_killed_search_goes_on(compose_job, caches, tmp_path):
    whole = evaluate(compose_job("evaluate", *SEARCH))["constant"]
    (cache,) = caches()
    lines = cache.read_text().splitlines(keepends=True)
    for kept in (0, 7, 29):
        cache.write_text("".join(lines[:kept]) + lines[kept][:20])
        found = evaluate(compose_job("evaluate", *SEARCH))["constant"]
        assert found["factor"] == whole["factor"] and found["scores"] == pytest.approx(whole["scores"])
        assert {line for line in cache.read_text().splitlines(keepends=True) if len(line) > 30} == {*lines}


def test_a_given_factor_needs_no_search(compose_job, caches):
    summary = evaluate(compose_job("evaluate", *SEARCH, "evaluation.constant.factor=1"))
    assert summary["constant"] == {"factor": 1.0, "metric": None, "prompts": None, "scores": None}
    assert summary["comparisons"][0]["ties"] == 16
    assert not caches()


def test_without_prompts_to_learn_from_the_control_is_left_out_with_a_note(compose_job, caches, tmp_path):
    (tmp_path / "mine.txt").write_text("a red circle\na blue square\n")
    (tmp_path / "learnt.txt").write_text("a green cross\na blue square\ntwo circles\n")
    options = ["pipeline.bundled=false", "prompts=file", f"prompts.path={tmp_path}/mine.txt", *SEARCH[1:]]
    summary = evaluate(compose_job("evaluate", *options))
    assert list(summary["methods"]) == ["standard"] and summary["constant"] == {}
    assert summary["notes"][0].startswith("the control 'constant' was not run: no prompts to search its factor on")
    assert not caches()
    learnt = ["prompts@evaluation.constant.prompts=file", f"evaluation.constant.prompts.path={tmp_path}/learnt.txt"]
    summary = evaluate(compose_job("evaluate", *options, *learnt))
    assert summary["constant"]["prompts"] == 2  # the blue square is evaluated


def test_the_evaluated_prompts_never_choose_the_factor(compose_job):
    config = compose_job("evaluate", *SEARCH, "prompts.count=80")
    evaluated = draw_prompts("train", 80)
    learnt = learning_prompts(config, evaluated)
    assert len(learnt) == 20
    assert not {prompt.text for prompt in learnt} & {prompt.text for prompt in evaluated}
    seeds = {prompt.seed for split in ("train", "test") for prompt in draw_prompts(split, 4_000)}
    assert not {prompt.seed for prompt in learnt} & seeds
    with pytest.raises(UserError, match=r"evaluation\.constant\.prompts are all evaluated too"):
        learning_prompts(config, draw_prompts("train", 20_000))


def test_more_prompts_keep_what_fewer_have_measured(compose_job):
    few, many = (learning_prompts(compose_job("evaluate", *SEARCH), draw_prompts("test", n)) for n in (40, 400))
    assert len(few) == 10 and len(many) == 100 and many[:10] == few


class Indifferent:
    """Likes every image the same; counts them."""

    range, version = (0.0, 1.0), "1"

    def __init__(self):
        self.judged = 0

    def score(self, prompts, images):
        self.judged += len(prompts)
        return torch.zeros(len(prompts))


@pytest.fixture
def chosen(compose_job):
    """The constant by another metric, with the pipeline that draws for it."""
    config = compose_job("evaluate", *SEARCH)
    pipeline = instantiate(config.pipeline.model)

    def choose(metric, draw=pipeline.sample):
        pipeline.sample = draw
        return choose_constant(config, draw_prompts("train", 4), pipeline, {"reward": metric}, quiet=True)

    return choose


def test_of_equal_factors_the_one_that_changes_least_is_chosen(chosen):
    assert chosen(Indifferent()).factor == 1.0


def test_another_version_of_the_metric_judges_again(chosen, caches):
    one, same, other = Indifferent(), Indifferent(), Indifferent()
    other.version = "2"
    for metric in (one, same, other):
        chosen(metric)
    assert [metric.judged for metric in (one, same, other)] == [12, 0, 12]
    assert len(caches()) == 2


def test_what_another_process_has_measured_meanwhile_is_not_drawn_again(compose_job, tmp_path):
    pipeline, prompts = instantiate(compose_job("evaluate", *SEARCH).pipeline.model), draw_prompts("train", 4)
    early, late = (Cache(tmp_path / "constants/scores.jsonl") for _ in range(2))
    metric = Indifferent()
    for cache in (early, late):
        mean_scores(pipeline, metric, prompts, [0.5, 1.0], cache, 2, quiet=True)
    assert metric.judged == 8


def test_an_image_that_is_not_finite_is_never_judged(chosen):
    metric = Indifferent()
    with pytest.raises(UserError, match=r"from 0\.5 times standard noise is not finite"):
        chosen(metric, draw=lambda prompt, latents, generator: torch.full((len(latents), 3, 32, 32), torch.nan))
    assert metric.judged == 0


IMPOSSIBLE = ["factor=0", "factor=-1", "factor=x", "factor=true", "factor=nan", "factor=1e38", "factor=[1]"]
IMPOSSIBLE += ["factors=[0.5,-1]", "factors=[nan]", "factors=[x]", "factors=[1e38]", "factors=[null]", "factors=[[1]]"]
IMPOSSIBLE += ["factors=[]", "factors=0.5", "factors=null"]


@pytest.mark.parametrize("option", IMPOSSIBLE)
def test_an_impossible_factor_is_named(compose_job, option):
    methods = ["evaluation.methods=[standard,constant]"]
    with pytest.raises(UserError, match=r"evaluation.constant.factors?\b.* must be (a number above 0|a list)") as error:
        check(compose_job("evaluate", *methods, f"evaluation.constant.{option}"))
    assert "\n" not in str(error.value)


def test_a_factor_that_is_not_searched_needs_none_to_try(compose_job):
    check(compose_job("evaluate", "evaluation.constant.factor=0.8", "evaluation.constant.factors=[]"))
    check(compose_job("evaluate", "evaluation.methods=standard", "evaluation.constant.factors=[]"))


def test_a_training_names_it_before_it_begins(compose_job):
    with pytest.raises(UserError, match=r"evaluation.constant.factors=\[\] must be a list"):
        check(compose_job("train", "evaluate=true", "evaluation.constant.factors=[]"))


@pytest.mark.parametrize("option", ["count=0", "count=-1", "count=abc"])
def test_an_impossible_count_is_named(compose_job, option):
    with pytest.raises(UserError, match=r"evaluation\.constant\.count=.* must be an integer >= 1"):
        check(compose_job("evaluate", f"evaluation.constant.{option}"))


def test_one_method_needs_no_brackets(compose_job):
    assert list(evaluate(compose_job("evaluate", *SMALL, "evaluation.methods=standard"))["methods"]) == ["standard"]


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        ("search", "lack 'standard'"),
        ("standart", "unknown method 'standart'"),
        ("5", "unknown method 5"),
        ("null", "lack 'standard'"),
        ("[[standard]]", "unknown method"),
    ],
)
def test_methods_that_are_none(compose_job, methods, words):
    with pytest.raises(UserError, match=words):
        check_evaluation(compose_job("evaluate", f"evaluation.methods={methods}"))


def test_controls_that_need_a_network_are_named_where_there_is_none(compose_job):
    methods = ["evaluation.methods=[standard,shuffled,constant]", "npnet=null"]
    with pytest.raises(UserError, match=r"which evaluation.methods needs for shuffled: give npnet="):
        evaluate(compose_job("evaluate", *SMALL, *methods))


def test_one_prompt_has_no_other_and_that_is_said_before_anything_is_loaded(compose_job, tmp_path):
    (tmp_path / "one.txt").write_text("a red circle\n")
    file = ["prompts=file", f"prompts.path={tmp_path}/one.txt", "prompts.repeats=12", *SMALL[1:]]
    missing = ["pipeline.model.source=/nowhere", "evaluation.methods=[standard,shuffled]"]
    with pytest.raises(UserError, match="at least two different prompts"):
        evaluate(compose_job("evaluate", *file, *missing))
    assert other_prompts(draw_prompts("test", 1_000))  # once endless
