"""The summary's form, the files and the terminal tables."""

import csv
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import sem, wilcoxon

from golden_noise.errors import UserError
from golden_noise.evaluation.results import print_table, summarise, write
from golden_noise.evaluation.scores import Scores
from golden_noise.evaluation.statistics import holm
from golden_noise.evaluation.verdict import probability
from golden_noise.generation.names import CONTROLS

CONFIG = {"pipeline": {"steps": 10}, "metric": ["strict", "soft"]}


def summary_of(scores):
    return summarise(scores, CONFIG, {"torch": "2.15.0"}, "python evaluate.py")


def test_methods_hold_means_over_all_items_and_per_task(make_scores):
    scores = make_scores(n=61)
    methods = summary_of(scores)["methods"]
    assert list(methods) == scores.methods
    for method, metrics in methods.items():
        for metric, entry in metrics.items():
            assert entry.keys() == {"n", "units", "mean", "standard_error", "ci95", "tasks"}
            assert entry["n"] == 61
            assert entry["mean"] == pytest.approx(scores.values[metric][method].mean())
            assert entry["ci95"][0] < entry["mean"] < entry["ci95"][1]
            assert {task: found["n"] for task, found in entry["tasks"].items()} == {
                "position": 31,
                "counting": 30,
            }
            pooled = sum(found["n"] * found["mean"] for found in entry["tasks"].values()) / 61
            assert pooled == pytest.approx(entry["mean"])


def test_comparisons_are_the_ones_the_verdict_needs(make_scores):
    comparisons = summary_of(make_scores())["comparisons"]
    expected = {("standard", m) for m in ("search", "npnet", *CONTROLS)}
    expected |= {(rival, "npnet") for rival in ("search", *CONTROLS)}
    for metric in ("strict", "soft"):
        for task in ("all", "position", "counting"):
            made = [(c["a"], c["b"]) for c in comparisons if (c["metric"], c["task"]) == (metric, task)]
            assert sorted(made) == sorted(expected)
    fields = {"metric", "a", "b", "task", "n", "difference", "standard_error", "ci95", "wins", "ties", "losses"}
    fields |= {
        "units",
        "units_better",
        "units_worse",
        "win_rate",
        "win_ci95",
        "p_value",
        "p_wilcoxon",
        "p_holm",
        "effect_size",
        "pairs_needed",
    }
    assert all(comparison.keys() == fields for comparison in comparisons)


def test_differences_are_b_minus_a_within_the_task(make_scores):
    scores = make_scores()
    found = next(
        c
        for c in summary_of(scores)["comparisons"]
        if (c["metric"], c["a"], c["b"], c["task"]) == ("soft", "shuffled", "npnet", "counting")
    )
    counting = [i for i, item in enumerate(scores.items) if item["task"] == "counting"]
    expected = (scores.values["soft"]["npnet"] - scores.values["soft"]["shuffled"])[counting].mean()
    assert found["difference"] == pytest.approx(expected)
    assert found["n"] == len(counting)


def test_methods_that_were_not_run_are_not_compared(make_scores):
    summary = summary_of(make_scores(methods=["standard", "npnet"], tasks=("",)))
    assert [(c["metric"], c["a"], c["b"]) for c in summary["comparisons"]] == [
        ("strict", "standard", "npnet"),
        ("soft", "standard", "npnet"),
    ]
    assert summary["kept_share"] == {"strict": None, "soft": None}
    assert summary["methods"]["npnet"]["soft"]["tasks"] == {}


def test_the_kept_share_is_reported_where_the_search_gains(make_scores):
    scores = make_scores()
    soft = scores.values["soft"]
    soft["search"], soft["npnet"] = soft["standard"] + 0.2, soft["standard"] + 0.1
    kept = summary_of(scores)["kept_share"]
    assert kept["soft"] == {"n": 60, "share": pytest.approx(0.5), "ci95": [pytest.approx(0.5)] * 2}


def test_json_holds_the_summary_and_csv_one_row_per_image(make_scores, tmp_path):
    scores = make_scores(n=5)
    scores.items[2]["prompt"] = "two\nlines, ünïcode"
    summary = summary_of(scores)
    write(tmp_path, scores, summary)
    assert json.loads((tmp_path / "results.json").read_text("utf-8")) == summary
    with (tmp_path / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * 7
    assert list(rows[0]) == ["index", "prompt", "seed", "task", "method", "strict", "soft", "image"]
    row = next(r for r in rows if r["index"] == "102" and r["method"] == "npnet")
    assert row["prompt"] == "two\nlines, ünïcode"
    assert (row["seed"], row["task"], row["image"]) == ("14", "position", "images/npnet/000102.png")
    assert float(row["soft"]) == pytest.approx(scores.values["soft"]["npnet"][2])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.csv", "results.json"]


def test_a_summary_that_is_not_json_leaves_the_old_results(make_scores, tmp_path):
    scores = make_scores(n=5)
    write(tmp_path, scores, summary_of(scores))
    before = (tmp_path / "results.json").read_bytes()
    with pytest.raises(ValueError, match="Out of range"):
        write(tmp_path, scores, summary_of(scores) | {"versions": {"torch": float("nan")}})
    assert (tmp_path / "results.json").read_bytes() == before


def printed(summary, width=80):
    console = Console(file=io.StringIO(), width=width)
    print_table(summary, console)
    return console.file.getvalue().splitlines()


def test_tables_fit_a_terminal_of_80_columns(make_scores):
    scores = make_scores(methods=["standard", "search", "npnet", *CONTROLS, "best_of_n", "second"])
    scores.values["soft"] = {method: values + 20 for method, values in scores.values["soft"].items()}
    lines = printed(summary_of(scores))
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    numbers = r"[+-]\d\.\d{3} \[[+-]\d\.\d{3}, [+-]\d\.\d{3}\] +\d+\.\d% +<?\d\.\d{3}"
    for method in ("shuffled prompts", "best of N", "second"):
        rows = [re.sub(numbers, "#", line.strip()) for line in lines if line.strip().startswith(f"{method}  ")]
        means = [re.fullmatch(rf"{method} +(\d+\.\d{{3}})? *#", row)[1] for row in rows]
        # Against standard noise with its mean, then NPNet against it; by both metrics.
        assert [mean is not None for mean in means] == [True, False, True, False]


def test_the_table_shows_what_each_method_cost(make_scores):
    scores = make_scores(methods=["standard", "search", "npnet", *CONTROLS, "best_of_n", "second"])
    assert not any("calls" in line for line in printed(summary_of(scores)))  # none were counted
    scores.calls.update(standard=10.0, search=1510.0, npnet=11.25)
    summary = summary_of(scores)
    assert summary["calls"] == scores.calls
    lines = printed(summary)
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    rows = [line.split() for line in lines]
    assert [row[:2] for row in rows if row and row[0] == "method"] == [["method", "calls"]] * 2
    for method, cost in (("standard", "10"), ("search", "1,510"), ("NPNet", "11.2"), ("second", "–")):
        assert next(row for row in rows if row[:1] == [method])[1] == cost
    del summary["calls"]  # as an earlier version left it
    assert not any("calls" in line for line in printed(summary))


def test_the_console_shows_the_p_value_of_the_report_and_says_which(make_scores):
    scores = make_scores(methods=["standard", "npnet"])
    scores.values["strict"]["npnet"] = np.maximum(scores.values["strict"]["npnet"], np.arange(60) % 5 == 0)
    summary = summary_of(scores)
    found = [c for c in summary["comparisons"] if c["task"] == "all"]
    assert found[0]["p_holm"] != found[0]["p_value"]
    lines = printed(summary)
    assert sum("p (Holm)" in line for line in lines) == 2
    shown = [line.split()[-1] for line in lines if line.strip().startswith("NPNet  ")]
    assert shown == [probability(c["p_holm"]) for c in found]


def test_every_further_method_is_compared_with_npnet_too(make_scores):
    few, many = ["standard", "npnet"], ["standard", "search", "npnet", "best_of_n", "second"]
    summary = summary_of(make_scores(methods=many))
    pairs = {(c["a"], c["b"]) for c in summary["comparisons"]}
    assert pairs == {("standard", m) for m in many[1:]} | {(m, "npnet") for m in ("search", "best_of_n", "second")}
    scores = make_scores(methods=many)
    alone = summary_of(Scores(scores.items, few, scores.metrics, scores.values))
    kept = [c for c in summary["comparisons"] if (c["a"], c["b"]) == tuple(few)]
    assert alone["comparisons"] == kept  # more methods change no p-value of theirs


def test_without_npnet_the_search_is_compared_with_the_others(make_scores):
    summary = summary_of(make_scores(methods=["standard", "search", "best_of_n"]))
    assert ("best_of_n", "search") in {(c["a"], c["b"]) for c in summary["comparisons"]}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_score_that_is_not_finite_is_named(make_scores, bad):
    scores = make_scores()
    scores.values["soft"]["npnet"][3] = bad
    with pytest.raises(UserError, match=r"'soft'.*'npnet', item 103 .*number 3"):
        Scores(scores.items, scores.methods, scores.metrics, scores.values)


def test_scores_without_items_or_standard_or_with_a_reserved_task_are_refused(make_scores):
    with pytest.raises(UserError, match="the prompt set is empty"):
        Scores([], ["standard"], ["soft"], {"soft": {"standard": np.zeros(0)}})
    with pytest.raises(UserError, match="lack 'standard'"):
        make_scores(methods=["npnet"])
    with pytest.raises(UserError, match="rename that task"):
        make_scores(tasks=("all", "position"))


def test_holms_family_is_one_comparison_by_every_metric(make_scores):
    scores = make_scores()
    comparisons = summary_of(scores)["comparisons"]
    family = [c for c in comparisons if (c["a"], c["b"], c["task"]) == ("standard", "npnet", "counting")]
    assert [c["metric"] for c in family] == ["strict", "soft"]
    assert [c["p_holm"] for c in family] == pytest.approx(holm([c["p_value"] for c in family]))


def test_diversity_and_noise_are_compared_with_standard_within_prompt_and_item(make_scores):
    scores = make_scores(n=12, methods=["standard", "npnet"])
    base = np.random.default_rng(1).random(5)
    scores.diversity["pixels"] = {"standard": base, "npnet": base - 0.1}
    scores.noise["variance"] = {"standard": np.ones(12), "npnet": np.full(12, 0.9)}
    summary = summary_of(scores)
    found = summary["diversity"]["pixels"]
    assert found["methods"]["standard"]["n"] == 5
    assert found["methods"]["standard"]["mean"] == pytest.approx(base.mean())
    assert found["differences"]["npnet"]["ci95"] == pytest.approx([-0.1, -0.1])
    assert summary["noise"]["variance"]["differences"]["npnet"]["mean"] == pytest.approx(-0.1)
    assert summary["noise"]["variance"]["methods"]["npnet"]["n"] == 12


def test_notes_say_what_the_numbers_cannot_tell(make_scores):
    assert summary_of(make_scores())["notes"] == []
    scores = make_scores(n=1)
    assert any("1 pair: too few" in note for note in summary_of(scores)["notes"])
    scores = make_scores()
    scores.values["strict"] = dict.fromkeys(scores.methods, np.ones(60))
    scores.values["soft"]["npnet"] = scores.values["soft"]["standard"]
    notes = summary_of(scores)["notes"]
    assert any(note.startswith("strict gives every image the same score, 1.000") for note in notes)
    assert "soft scores every pair the same from standard noise and from NPNet" in notes


def test_images_from_elsewhere_keep_their_place_in_the_csv(make_scores, tmp_path):
    scores = make_scores(n=2, methods=["standard"])
    scores.files["standard"] = ["/data/a.png", "/data/b.png"]
    write(tmp_path, scores, summary_of(scores))
    with (tmp_path / "results.csv").open(newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == ["/data/a.png", "/data/b.png"]


def repeated(make_scores, prompts, seeds, **options):
    """Scores of prompts with several seeds each, with a part that all seeds of a prompt share."""
    scores = make_scores(n=prompts * seeds, **options)
    for i, item in enumerate(scores.items):
        item["prompt"] = f"prompt {i % prompts}"
    shared = np.tile(np.random.default_rng(5).normal(size=prompts), seeds)
    scores.values["soft"]["npnet"] = scores.values["soft"]["npnet"] + shared
    return scores


def test_prompts_are_resampled_where_they_repeat(make_scores):
    scores = repeated(make_scores, 20, 6, tasks=("",))
    summary = summary_of(scores)
    found = next(c for c in summary["comparisons"] if (c["metric"], c["b"]) == ("soft", "npnet"))
    change = scores.values["soft"]["npnet"] - scores.values["soft"]["standard"]
    means = change.reshape(6, 20).mean(axis=0)
    assert (found["n"], found["units"]) == (120, 20)
    assert found["units_better"] == (means > 0).sum()
    assert found["standard_error"] == pytest.approx(sem(means))
    assert found["standard_error"] > 1.5 * sem(change)
    assert found["p_wilcoxon"] == pytest.approx(wilcoxon(means).pvalue)
    assert summary["notes"] == [
        "prompts repeat: intervals and p are over 20 prompts with all their seeds, win rates over pairs"
    ]
    assert any("soft, 120 pairs of 20 prompts" in line for line in printed(summary))


def test_few_prompts_are_noted_and_a_single_one_is_judged_by_its_seeds(make_scores):
    assert summary_of(repeated(make_scores, 4, 30, tasks=("",)))["notes"][0].startswith("4 prompts: too few")
    one = summary_of(repeated(make_scores, 1, 30, tasks=("",)))
    assert one["notes"][0].startswith("all pairs are of one prompt")
    assert one["comparisons"][0]["units"] == 30
    tasks = repeated(make_scores, 16, 4)
    for i, item in enumerate(tasks.items):
        item["task"] = "small" if i % 16 < 4 else "large"
    assert summary_of(tasks)["notes"][1] == (
        "categories of fewer than 10 prompts, whose intervals are too narrow: small (4)"
    )


SEARCHED = {"factor": 0.6, "metric": "strict", "prompts": 15, "scores": {"0.6": 0.8, "0.8": 0.7, "1": 0.5}}


@pytest.mark.parametrize(
    ("constant", "words"),
    [
        (SEARCHED, "noise x 0.6, the best by strict of 3 factors from 0.6 to 1 on 15 other prompts"),
        (SEARCHED | {"factor": 1.0, "prompts": 1}, "on 1 other prompt; that control is standard noise itself"),
        ({"factor": 0.7, "metric": None, "prompts": None, "scores": None}, "noise x 0.7, as given"),
    ],
)
def test_the_constant_is_reported_with_what_chose_it(make_scores, constant, words):
    scores = replace(make_scores(), constant=constant)
    for metric in scores.metrics:
        scores.values[metric]["constant"] = scores.values[metric]["standard"]
    summary = summary_of(scores)
    assert summary["constant"] == constant
    (note,) = [note for note in summary["notes"] if note.startswith("the constant is")]
    assert note.endswith(words)
    tied = [note for note in summary["notes"] if "the same from standard noise and from constant factor" in note]
    assert len(tied) == (0 if constant["factor"] == 1 else 2)


def test_what_was_left_out_is_a_note(make_scores):
    assert summary_of(replace(make_scores(), remarks=["left out"]))["notes"][0] == "left out"
