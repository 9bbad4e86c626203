"""One round of objective=scored: candidates are drawn, scored in a file, and learned from."""

import csv
import io
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
from golden_noise.generation.candidates import SCORES, Origin, read_table, write_table
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


def train_plain(settings):
    """In another process, which has no resolvers."""
    train(OmegaConf.create(settings))


@pytest.mark.slow
def test_a_round_killed_at_a_random_moment_ends_as_one_in_one_go(compose_job, tmp_path):
    """It writes a checkpoint after every batch; the same name with another table is refused."""
    path = draw(compose_job, tmp_path, NETWORK)
    rows = judged(path)
    epochs = ["recipe.epochs=20", "callbacks.last.minutes=0", "recipe.batch_size=3"]
    options = [NETWORK, "model=denoiser_lora", *epochs]
    config = round_of(compose_job, path, *options)
    victim = CONTEXT.Process(target=train_plain, args=(OmegaConf.to_container(config, resolve=True),))
    victim.start()
    checkpoint = tmp_path / "run/checkpoints/last.ckpt"
    while not checkpoint.exists() and victim.is_alive():
        time.sleep(0.01)
    time.sleep(random.random() / 5)
    victim.kill()
    victim.join()
    assert victim.exitcode == -signal.SIGKILL
    assert 0 < torch.load(checkpoint, weights_only=True)["global_step"] < 40
    rows[0]["score"] = "7"
    save(path.with_name("other.csv"), rows)
    with pytest.raises(UserError, match=r"other files in .*other.csv"):
        train(round_of(compose_job, path.with_name("other.csv"), *options))
    train(config)
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 40
    train(round_of(compose_job, path, *options, f"folder={tmp_path}/whole"))
    last = "npnet/last/diffusion_pytorch_model.safetensors"
    weights = [load_file(tmp_path / run / last) for run in ("run", "whole")]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-3, atol=1e-5)


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
    groups, drawn = read_table(path, BY)
    assert drawn == 4
    assert {(group.prompt.text, group.prompt.seed) for group in groups} == {(p.text, p.seed) for p in PROMPTS}
    assert all(group.scores == [0.0, 1.0, 2.0] and group.sigma == 0.25 for group in groups)


def test_groups_without_two_scores_are_left_out(table):
    path, rows = table
    for number in (0, 1, 2, 3, 4, 8):
        rows[number]["score"] = " "
    save(path, rows)
    groups, drawn = read_table(path, BY)
    assert drawn == 4
    assert [group.scores for group in groups] == [[0.0, 1.0, None], [0.0, 1.0, 2.0]]
    for row in rows:
        row["score"] = ""
    save(path, rows)
    with pytest.raises(UserError, match="no group has two different scores: fill in the column 'score'"):
        read_table(path, BY)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("score", "good", r"score 'good' must be a number from -1e9 to 1e9, or empty"),
        ("score", "nan", "must be a number from"),
        ("score", "1e999", "must be a number from"),
        ("score", "1e308", "must be a number from"),
        ("score", "-1000000001", "must be a number from"),
        ("score", "4,5", "score '4,5' must be a number from"),
        ("image", "1_0.png", "a cell of it was changed"),
        ("groups", "3", "a cell of it was changed"),
        ("groups", "", "seed, member and groups must be integers"),
        ("prompt", "b", "a cell of it was changed, or another pipeline drew it"),
        ("seed", "7", "a cell of it was changed"),
        ("seed", "5.5", "seed, member and groups must be integers"),
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


def test_cells_that_moved_to_other_rows_are_refused(table):
    """As if only some columns had been sorted."""
    path, rows = table
    images = [row["image"] for row in rows]
    for row, image in zip(rows, [images[-1], *images], strict=False):
        row["image"] = image
    save(path, rows)
    with pytest.raises(UserError, match=r"line 2: a cell of it was changed"):
        read_table(path, BY)


def test_whole_groups_may_be_missing_and_are_counted(table, tmp_path, capsys):
    path, rows = table
    save(path, rows[3:])
    groups, drawn = read_table(path, BY)
    assert len(groups) == 3 and drawn == 4
    data = ScoredDataModule(str(path), None, (4, 8, 16), batch_size=1, seed=0, pin_memory=False)
    data.read(BY)
    assert capsys.readouterr().out == f"{path}: 3 of 4 groups scored\n"


def test_the_rows_of_two_drawings_are_refused(table, tmp_path):
    path, rows = table
    for name, count in {"fewer": 1, "as_many": 4}.items():
        (tmp_path / name).mkdir()
        images = [[tmp_path / name / f"{i}_{member}.png" for member in range(3)] for i in range(count)]
        write_table(tmp_path / name, images, [Prompt(i, "ü", 100 + i) for i in range(count)], 0.25, BY)
        save(path, [*(rows[3:] if name == "fewer" else rows), *rows_of(tmp_path / name / SCORES)])
        with pytest.raises(UserError, match=r"line \d+: of another drawing than the 4 groups above"):
            read_table(path, BY)


@pytest.mark.parametrize(
    ("delimiter", "encoding"), [(";", "utf-8-sig"), ("\t", "utf-16"), (",", "utf-16"), ("\t", "utf-8"), (";", "utf-16")]
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_tables_of_all_spreadsheets_are_read(table, delimiter, encoding, line_end):
    path, rows = table
    for row in rows:
        row["score"] = row["score"] + (",5" if delimiter == ";" else ".5")
        row["sigma"] = row["sigma"].replace(".", "," if delimiter == ";" else ".")
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), delimiter=delimiter, lineterminator=line_end)
    writer.writeheader()
    for row in rows:
        writer.writerow(row)
        text.write(delimiter * (len(row) - 1) + line_end)  # a blank row
    path.write_bytes(text.getvalue().encode(encoding))
    groups, drawn = read_table(path, BY)
    assert len(groups) == drawn == 4 and all(group.scores == [0.5, 1.5, 2.5] for group in groups)
    assert {group.prompt.text for group in groups} == {prompt.text for prompt in PROMPTS}


def test_what_a_spreadsheet_would_take_for_a_number_begins_with_a_word(table, compose_job):
    _, rows = table
    assert all(row["check"].startswith("check-") for row in rows)
    assert Origin.of(compose_job("generate"), "12e4567890123456").network == "npnet-12e4567890123456"


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


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "has no column 'image'"),
        (b"image;prompt;seed\n", "has no column 'member'.* must be the scores.csv of noise=candidates"),
        (b"image,prompt,seed,member,sigma,network,groups,check,score,Score\n", "has two columns 'score'"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (b"PK\x03\x04", "is packed .zip, as Excel's .xlsx is"),
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
    with pytest.raises(UserError, match="line 17: 2 cells for 9 columns"):
        read_table(path, BY)
