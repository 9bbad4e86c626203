"""One round of objective=scored: candidates are drawn, scored in a file, and learned from."""

import csv
import json

import pytest
import torch
from hydra.utils import instantiate
from PIL import Image
from safetensors.torch import load_file

from golden_noise.cli.validation import check
from golden_noise.errors import UserError
from golden_noise.generation.candidates import SCORES, Origin, read_table, write_table
from golden_noise.generation.job import generate
from golden_noise.generation.network import load_npnet
from golden_noise.generation.provenance import weights_digest
from golden_noise.images import from_pil
from golden_noise.objectives.policy import Policy
from golden_noise.pipelines.lazy import LazyPipeline
from golden_noise.prompts import Prompt
from golden_noise.shapes.metric import ShapesScore
from golden_noise.training.data import build_data
from golden_noise.training.job import train

REAL = ["pipeline.model.source=package:shapes/weights/pipeline", "pipeline.steps=2"]
NETWORK = "npnet=package:shapes/weights/npnet"
DETECTOR = ShapesScore(strict=False)


def draw(compose_job, tmp_path, *overrides):
    drawing = ["noise=candidates", "prompts=shapes", "prompts.count=6", "candidates={group:3,sigma:0.5}"]
    config = compose_job("generate", *REAL, *drawing, f"folder={tmp_path}/round", *overrides)
    check(config)
    generate(config)
    return tmp_path / "round" / SCORES


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def save(path, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


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
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)


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


# The table ------------------------------------------------------------------------------------------------------

BY = Origin("a" * 16, "p")
PROMPTS = [Prompt(0, 'a "red" circle, twice\nover', 5), Prompt(1, "ü=1+1", 2**62), Prompt(2, "a", 5), Prompt(3, "a", 6)]


@pytest.fixture
def table(tmp_path):
    images = [[tmp_path / f"{i}_{member}.png" for member in range(3)] for i in range(len(PROMPTS))]
    write_table(tmp_path, images, PROMPTS, 0.25, BY)
    rows = rows_of(tmp_path / SCORES)
    assert len(rows) == 12
    for number, row in enumerate(rows):
        row["score"] = str(number % 3)
    return tmp_path / SCORES, rows


def test_a_table_is_read_as_it_was_written_in_any_order(table):
    path, rows = table
    save(path, rows[::-1])
    groups = read_table(path, BY)
    assert {(group.prompt.text, group.prompt.seed) for group in groups} == {(p.text, p.seed) for p in PROMPTS}
    assert all(group.scores == [0.0, 1.0, 2.0] and group.sigma == 0.25 for group in groups)


def test_groups_without_two_scores_are_left_out(table):
    path, rows = table
    for number in (0, 1, 2, 3, 4, 8):
        rows[number]["score"] = " "
    save(path, rows)
    groups = read_table(path, BY)
    assert [group.scores for group in groups] == [[0.0, 1.0, None], [0.0, 1.0, 2.0]]
    for row in rows:
        row["score"] = ""
    save(path, rows)
    with pytest.raises(UserError, match="no group has two scores: fill in the column 'score'"):
        read_table(path, BY)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("score", "good", r"score 'good' must be a finite number, or empty"),
        ("score", "nan", "must be a finite number"),
        ("score", "1e999", "must be a finite number"),
        ("prompt", "b", "a cell of it was changed, or another pipeline drew it"),
        ("seed", "7", "a cell of it was changed"),
        ("seed", "5.5", "seed and member must be integers"),
        ("member", "1", "a cell of it was changed"),
        ("sigma", "0.3", "a cell of it was changed"),
        ("network", "b" * 16, "drawn by the network bbbbbbbbbbbbbbbb, but this training starts from aaaaaaaaaaaaaaaa"),
    ],
)
def test_a_row_that_is_not_of_its_image_is_named_by_its_line(table, column, value, words):
    path, rows = table
    rows[8][column] = value
    save(path, rows)
    with pytest.raises(UserError, match=rf"scores.csv, line 13: .*{words}") as error:  # the first caption has two lines
        read_table(path, BY)
    assert "\n" not in str(error.value)


def test_missing_and_doubled_rows_are_named(table):
    path, rows = table
    save(path, [*rows[:7], *rows[8:]])
    with pytest.raises(UserError, match=r"line 11: the group of 'a' \(seed 5\) that begins here lacks member 1 of 3"):
        read_table(path, BY)
    save(path, [*rows, rows[4]])
    with pytest.raises(UserError, match=r"line 17: this image has a row already"):
        read_table(path, BY)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "has no column 'image'"),
        (b"image;prompt;seed\n", "has no column 'image'.* with commas"),
        (b"\xff\xfe\x00", "cannot read .* as a table"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, content, words):
    (tmp_path / SCORES).write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_table(tmp_path / SCORES, BY)
    with pytest.raises(UserError, match="does not exist: draw candidates"):
        read_table(tmp_path / "none.csv", BY)


def test_a_row_with_too_few_cells_is_refused(table):
    path, _ = table
    with path.open("a") as file:
        file.write("x.png,a\n")
    with pytest.raises(UserError, match="line 17: it does not have 8 cells"):
        read_table(path, BY)
