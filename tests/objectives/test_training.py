"""train.py with every objective, on a random pipeline: networks, resuming, and two ranks."""

import csv
import json

import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from safetensors.torch import load_file

from golden_noise.cli.validation import check
from golden_noise.collecting.job import collect
from golden_noise.errors import UserError
from golden_noise.evaluation.job import evaluate
from golden_noise.npnet import DenoiserNPNet, NPNet
from golden_noise.training.job import train
from tests.forked import run_script

ONLINE = ["guided", "policy", "reward"]
FEW = [
    "prompts.count=60",
    "recipe.batch_size=8",
    "recipe.epochs=2",
    "recipe.lora_rank=4",
    "recipe.backbone_args.embed_dim=16",
    "recipe.backbone_args.depth=1",
    "data.val_fraction=0.4",
    "pipeline.steps=2",
    "callbacks.progress.refresh_rate=0",
    "trainer.log_every_n_steps=1",
    "+trainer.limit_train_batches=2",
    "+trainer.limit_val_batches=1",
]
SMALL = {"policy": ["objective.group=2"], "guided": ["objective.target_steps=2"]}


def job(compose_job, objective, *overrides):
    config = compose_job("train", *FEW, f"objective={objective}", *SMALL.get(objective, ()), *overrides)
    check(config)
    return config


def weights(folder):
    return load_file(folder / "npnet/last/diffusion_pytorch_model.safetensors")


@pytest.fixture
def pipeline(compose_job):
    return instantiate(compose_job("train", "pipeline.steps=2").pipeline.model)


@pytest.mark.parametrize("model", ["svd_unet+unet", "denoiser_lora"])
@pytest.mark.parametrize("objective", ONLINE)
def test_it_needs_prompts_alone(compose_job, tmp_path, objective, model):
    train(job(compose_job, objective, f"model={model}"))
    assert not (tmp_path / "pairs").exists()
    run = tmp_path / "run"
    assert any(tensor.any() for tensor in weights(run).values())
    rows = list(csv.DictReader((run / "csv/version_0/metrics.csv").open()))
    logged = {name for row in rows for name, value in row.items() if value}
    assert {"train/loss", "val/loss", "val/score/strict", "val/score/soft", "val/score/reward"} <= logged
    if objective != "guided":
        assert {"train/reward", "train/penalty", "val/reward", "val/penalty"} <= logged
    assert "val/explained" not in logged
    facts = json.loads((run / "run.json").read_text())
    assert facts["explained"] is None
    assert facts["monitor"] == ("val/reward" if objective == "policy" else "val/loss")
    assert isinstance(facts["best"], float)
    assert f"| objective | {objective.capitalize()}(" in (run / "npnet/best/README.md").read_text()


def test_a_figure_that_no_validation_has_is_named_before_the_first_step(compose_job, tmp_path):
    with pytest.raises(UserError, match=r"objective\.monitor=val/explained: .* only val/loss, val/penalty, val/reward"):
        train(job(compose_job, "reward", "objective.monitor=val/explained"))
    assert not (tmp_path / "run/npnet").exists() and not (tmp_path / "run/checkpoints").exists()


@pytest.mark.parametrize("objective", ONLINE)
def test_every_adapter_learns_and_nothing_else_changes(compose_job, pipeline, objective):
    config = job(compose_job, objective, "model=denoiser_lora")
    loss = instantiate(config.objective)
    npnet = DenoiserNPNet(pipeline, rank=2, target_modules=list(config.model.npnet.target_modules))
    parts = {name: part for name, part in pipeline.pipe.components.items() if isinstance(part, torch.nn.Module)}
    before = {name: [p.clone() for p in part.parameters()] for name, part in parts.items()}
    prompt = pipeline.encode(["a red circle", "two squares"] * 2)
    noise = pipeline.draw_noise([1, 2, 3, 4])
    assert torch.equal(npnet.golden(noise, prompt), noise)
    optimizer = torch.optim.SGD(npnet.parameters(), lr=1.0)
    for _ in range(3):  # first of the output layer's second factor, then of the other layers', then of all first ones
        optimizer.zero_grad()
        loss(npnet, {"noise": noise}, prompt, pipeline).loss.backward()
        optimizer.step()
    for name, parameter in npnet.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name
    for name, part in parts.items():
        assert all(torch.equal(old, new) for old, new in zip(before[name], part.parameters(), strict=True)), name
        assert all(p.grad is None for p in part.parameters()), name


@pytest.mark.long
@pytest.mark.parametrize("objective", ["reward", pytest.param("policy", marks=pytest.mark.slow)])
def test_resumed_it_ends_as_in_one_go(compose_job, tmp_path, objective):
    """Noises are fresh in every epoch, and the same after a restart."""
    options = ["model=denoiser_lora", "++trainer.limit_train_batches=null", "model.scheduler=null"]
    whole = job(compose_job, objective, *options, f"folder={tmp_path}/whole")
    train(whole)
    train(job(compose_job, objective, *options, "recipe.epochs=1"))
    train(job(compose_job, objective, *options))
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "run")
    assert all(torch.equal(one[name], other[name]) for name in one)
    train(job(compose_job, objective, *options, "recipe.epochs=1", f"folder={tmp_path}/short"))
    first = weights(tmp_path / "short")
    assert any(not torch.equal(one[name], first[name]) for name in one)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("objective.beta=2", "objective.beta=1.0, now objective.beta=2"),
        ("reward.weights.reward=2", "objective.reward.weights.reward=1.0, now objective.reward.weights.reward=2"),
        ("pipeline.steps=3", "pipeline.model.steps=2, now pipeline.model.steps=3"),
        ("prompts.seed=5", "other prompts"),
        ("objective=guided", "objective."),
    ],
)
def test_other_settings_are_not_trained_on(compose_job, change, named):
    train(job(compose_job, "reward", "recipe.epochs=1"))
    with pytest.raises(UserError, match=named.replace(".", r"\.")):
        train(job(compose_job, "reward", "recipe.epochs=2", change))


@pytest.mark.slow
def test_two_ranks_learn_what_one_does(tiny_sdxl, compose_job, tmp_path):
    options = ["model=denoiser_lora", "model.scheduler=null", "model.optimizer.lr=0.01", "recipe.epochs=1"]
    train(job(compose_job, "reward", *options))
    places = [f"paths.outputs={tmp_path}/outputs", "name=two", "logger=null", "device=cpu", "evaluate=false"]
    quick = ["recipe=shapes", "sample_every_n_epochs=0", f"pipeline.model.source={tiny_sdxl}", "objective=reward"]
    half = [each for each in FEW if "backbone" not in each and "epochs" not in each] + ["recipe.batch_size=4"]
    done = run_script(tmp_path, "train.py", *quick, *half, *places, *options, "trainer=ddp_cpu")
    assert done.returncode == 0, done.stderr
    one, two = weights(tmp_path / "run"), weights(tmp_path / "outputs/train/two")
    assert max((one[name] - two[name]).abs().max() for name in one) < 1e-4
    assert max(value.abs().max() for value in one.values()) > 1e-3


def test_it_starts_from_a_trained_network(compose_job, tmp_path):
    train(job(compose_job, "reward", "recipe.epochs=1", f"folder={tmp_path}/first"))
    train(job(compose_job, "policy", "recipe.epochs=1", f"npnet={tmp_path}/first"))
    first, second = (NPNet.from_pretrained(folder / "npnet/last") for folder in (tmp_path / "first", tmp_path / "run"))
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_pairs_are_filtered_by_their_stored_scores(compose_job, tmp_path):
    options = ["prompts.count=60", "pipeline.steps=2", "collection.select_by=strict", "collection.margin=-1e9"]
    collect(compose_job("collect", *options))
    train(job(compose_job, "pairs", *options, "objective.filter={reward: 0}"))
    rows = list(csv.DictReader((tmp_path / "run/csv/version_0/metrics.csv").open()))
    kept = [float(row["train/kept"]) for row in rows if row.get("train/kept")]
    assert 0 < min(kept) < 1
    with pytest.raises(UserError, match=r"objective\.filter\.aes: pair .* has no such score, but"):
        train(job(compose_job, "pairs", *options, "objective.filter={aes: 0}", f"folder={tmp_path}/other"))


def test_transport_learns_from_the_best_of_n(compose_job, tmp_path):
    searched = ["search=best_of_n", "search.n=2", "collection.shard_size=16"]
    train(job(compose_job, "transport", *searched, "recipe.epochs=1"))
    rows = list(csv.DictReader((tmp_path / "run/csv/version_0/metrics.csv").open()))
    assert any(float(row["val/explained"]) < 1 for row in rows if row.get("val/explained"))


def test_a_reward_without_gradients_says_so_before_it_trains(compose_job):
    with pytest.raises(InstantiationException, match=r"reward\.weights\.strict: strict has no gradients"):
        train(job(compose_job, "reward", "reward=strict"))


def test_a_policy_learns_from_what_has_no_gradients(compose_job, tmp_path):
    train(job(compose_job, "policy", "reward=strict"))
    assert (tmp_path / "run/npnet/best").is_dir()


def test_too_few_prompts_are_refused(compose_job):
    with pytest.raises(UserError, match=r"prompts= holds \d+ training and \d+ validation prompts, too few"):
        train(job(compose_job, "reward", "prompts.count=4"))


def test_an_evaluation_says_which_metric_was_trained_on(compose_job, tmp_path):
    judged = ["pipeline.steps=2", "evaluation.methods=[standard,npnet]"]
    few = ["evaluation.prompts.count=4", "evaluation.batch_size=4"]
    train(job(compose_job, "reward", "evaluate=true", *few, *judged[1:]))
    note = "reward: the network was trained to raise it, so that other metrics judge"
    assert note in json.loads((tmp_path / "run/evaluation/results.json").read_text())["notes"]
    options = [*judged, "prompts.count=4", f"npnet={tmp_path}/run", f"folder={tmp_path}/judged"]
    assert note in evaluate(compose_job("evaluate", *options))["notes"]
    assert note not in evaluate(compose_job("evaluate", *options, "~metric.reward", f"folder={tmp_path}/b"))["notes"]
