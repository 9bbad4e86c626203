"""One round of objective=scored: candidates are drawn, scored in a file, and learned from."""

import json
import math
import random
import signal
import time

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file

from golden_noise.cli.validation import check
from golden_noise.errors import UserError
from golden_noise.generation.candidates import SCORES, Origin, write_table
from golden_noise.generation.job import generate
from golden_noise.generation.network import load_npnet
from golden_noise.generation.provenance import weights_digest
from golden_noise.images import from_pil
from golden_noise.objectives.policy import Policy, advantages
from golden_noise.pipelines.lazy import LazyPipeline
from golden_noise.prompts import Prompt
from golden_noise.shapes.metric import ShapesScore
from golden_noise.training.data import build_data
from golden_noise.training.job import train
from golden_noise.training.score_data import ScoredDataModule, standardised
from tests.forked import CONTEXT
from tests.score_tables import rows_of, save

REAL = ["pipeline.model.source=package:shapes/weights/pipeline", "pipeline.steps=2"]
NETWORK = "npnet=package:shapes/weights/npnet"
DETECTOR = ShapesScore(strict=False)


def draw(compose_job, tmp_path, *overrides):
    drawing = ["noise=candidates", "prompts=shapes", "prompts.count=6", "candidates={group:3,sigma:0.5}"]
    config = compose_job("generate", *REAL, *drawing, f"folder={tmp_path}/round", *overrides)
    check(config)
    generate(config)
    return tmp_path / "round" / SCORES


def judged(path):
    """Scores every image by the detector, as a person would by eye."""
    rows = rows_of(path)
    for row in rows:
        image = from_pil([Image.open(path.parent / row["image"])])
        row["score"] = DETECTOR.score([row["prompt"]], image).item()
    save(path, rows)
    return rows


def round_of(compose_job, path, *overrides):
    options = ["objective=scored", f"objective.path={path}", "recipe.batch_size=6", "model.scheduler=null"]
    config = compose_job("train", *REAL, *options, "recipe.epochs=1", *overrides)
    check(config)
    return config


@pytest.mark.parametrize("npnet", [NETWORK, "npnet=null"])
def test_the_detector_by_hand_teaches_what_the_detector_teaches(compose_job, tmp_path, npnet):
    path = draw(compose_job, tmp_path, npnet)
    rows = judged(path)
    assert len(rows) == 18 and len({row["score"] for row in rows}) > 3
    model = "model=denoiser_lora" if npnet == NETWORK else "model=low_frequency"
    config = round_of(compose_job, path, npnet, model)
    pipeline = LazyPipeline(config.pipeline.model)
    if npnet == NETWORK:
        network = load_npnet(config, config.npnet, pipeline).train()
    else:
        network = instantiate(config.model.npnet)
    data = build_data(config, pipeline)
    data.read(Origin.of(config, weights_digest(network) if npnet == NETWORK else None))
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert batch["scores"].shape == (6, 3)
    gradients = []
    for objective in (instantiate(config.objective), Policy(DETECTOR, group=3, sigma=0.5)):
        network.zero_grad()
        objective(network, batch, batch["embedding"], pipeline).loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    assert gradients[1].norm() > 0
    assert (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[1].norm()


def test_a_round_is_a_training(compose_job, tmp_path):
    path = draw(compose_job, tmp_path, NETWORK)
    judged(path)
    train(round_of(compose_job, path, NETWORK, "model=denoiser_lora"))
    before = load_file("golden_noise/shapes/weights/npnet/diffusion_pytorch_model.safetensors")
    for which in ("best", "last"):
        after = load_file(tmp_path / f"run/npnet/{which}/diffusion_pytorch_model.safetensors")
        assert before.keys() == after.keys() and any(not torch.equal(before[name], after[name]) for name in before)
    assert "Scored(path=scores.csv" in (tmp_path / "run/npnet/best/README.md").read_text()
    with pytest.raises(UserError, match=r"none.csv does not exist: draw candidates"):
        train(round_of(compose_job, tmp_path / "none.csv", NETWORK, "model=denoiser_lora", f"folder={tmp_path}/none"))
    rows = rows_of(path)
    rows[0]["score"] = "7"
    save(path, rows)
    with pytest.raises(UserError, match=r"other files in .*scores.csv"):
        train(round_of(compose_job, path, NETWORK, "model=denoiser_lora", "recipe.epochs=2"))
    other = ["model=denoiser_lora", f"npnet={tmp_path}/run", f"folder={tmp_path}/other"]
    with pytest.raises(UserError, match=r"line 2: drawn by the network .* starts from .*: give the npnet= that"):
        train(round_of(compose_job, path, *other))


def test_drawing_again_keeps_what_was_filled_in(compose_job, tmp_path):
    path = draw(compose_job, tmp_path, "npnet=null")
    rows = judged(path)
    facts = [json.loads(line) for line in (path.parent / "metadata.jsonl").read_text().splitlines()]
    assert [fact["noise"] for fact in facts[:3]] == ["candidate_0", "candidate_1", "candidate_2"]
    draw(compose_job, tmp_path, "npnet=null")
    assert [row["score"] for row in rows_of(path)] == [str(row["score"]) for row in rows]
    save(path, rows[:-3])
    with pytest.raises(UserError, match=r"scores.csv is of other images: move it away"):
        draw(compose_job, tmp_path, "npnet=null")


@pytest.mark.slow
def test_a_round_killed_at_a_random_moment_ends_as_one_in_one_go(compose_job, tmp_path):
    """It writes a checkpoint after every batch; the same name with another table is refused."""
    path = draw(compose_job, tmp_path, NETWORK)
    rows = judged(path)
    epochs = ["recipe.epochs=20", "callbacks.last.minutes=0", "recipe.batch_size=3"]
    options = [NETWORK, "model=denoiser_lora", *epochs]
    config = round_of(compose_job, path, *options)
    settings = OmegaConf.create(OmegaConf.to_container(config, resolve=True))  # the process has no resolvers
    victim = CONTEXT.Process(target=train, args=(settings,))
    victim.start()
    checkpoint = tmp_path / "run/checkpoints/last.ckpt"
    while not checkpoint.exists() and victim.is_alive():
        time.sleep(0.01)
    time.sleep(random.random() / 5)
    victim.kill()
    victim.join()
    assert victim.exitcode == -signal.SIGKILL
    assert 0 < torch.load(checkpoint, weights_only=True)["global_step"] < 40
    table = path.read_bytes()
    save(path, [rows[0] | {"score": "7"}, *rows[1:]])
    with pytest.raises(UserError, match=r"other files in .*scores.csv"):
        train(config)
    path.write_bytes(table)
    train(config)
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 40
    train(round_of(compose_job, path, *options, f"folder={tmp_path}/whole"))
    last = "npnet/last/diffusion_pytorch_model.safetensors"
    weights = [load_file(tmp_path / run / last) for run in ("run", "whole")]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-3, atol=1e-5)


def test_the_training_says_how_many_groups_it_uses(tmp_path, capsys):
    by, prompts = Origin("a" * 16, "p"), [Prompt(i, "a ü", i) for i in range(4)]
    write_table(tmp_path, [[tmp_path / f"{i}_{m}.png" for m in range(2)] for i in range(4)], prompts, 0.25, by)
    path = tmp_path / SCORES
    rows = rows_of(path)[:4] + rows_of(path)[6:]
    for i, row in enumerate(rows[:4]):
        row["score"] = i
    save(path, rows)
    data = ScoredDataModule(str(path), None, (4, 8, 16), batch_size=1, seed=0, pin_memory=False)
    data.read(by)
    assert capsys.readouterr().out == f"{path}: 2 of 4 groups scored\n"


NAN = math.nan


@pytest.mark.parametrize(
    "scores",
    [
        [0.0, 1.0, 2.0],
        [1e9 - 2, 1e9 - 1, 1e9],  # all equal in float32
        [-1e9, 0.0, 1e9],
        [1e-300, 2e-300, 3e-300],
        [123456789.001, 123456789.002, 123456789.003],
    ],
)
def test_scores_of_any_size_teach_the_same(scores):
    given = torch.tensor([[*scores, NAN], [NAN, *scores]], dtype=torch.float64)
    standard = standardised(given)
    expected = torch.tensor([-(1.5**0.5), 0, 1.5**0.5], dtype=torch.float64)
    torch.testing.assert_close(standard[0, :3], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(standard[1, 1:], expected, rtol=1e-4, atol=1e-4)
    assert standard.isnan().sum() == 2
    torch.testing.assert_close(advantages(standard.float().T).T[0, :3], expected.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scores", [[0.3, 0.1 + 0.2, 0.3], [1e9, 1e9, 1e9], [0.0, 0.0, NAN], [0.1, 0.1, 0.1]])
def test_equal_scores_teach_nothing(scores):
    standard = standardised(torch.tensor([scores], dtype=torch.float64)).float()
    assert (standard.nan_to_num() == 0).all() and (advantages(standard.T) == 0).all()
