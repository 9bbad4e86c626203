"""What W&B gets, read back from offline runs: collect run -> pairs -> train run -> weights -> evaluate run."""

import json
import shutil

import pytest
from PIL import Image, ImageChops

from golden_noise.collecting.job import collect
from golden_noise.collecting.report import folder_artifact, report_pairs
from golden_noise.evaluation.job import evaluate_job
from golden_noise.pairs import ShardIndex
from golden_noise.training.job import train

SMALL = ["prompts.count=60", "pipeline.steps=2", "~metric.reward"]
TINY = [
    "collection.shard_size=40",
    "recipe.batch_size=8",
    "recipe.epochs=2",
    "recipe.backbone_args.embed_dim=16",
    "recipe.backbone_args.depth=1",
    "data.val_fraction=0.3",
    "callbacks.progress.refresh_rate=0",
]


def test_runs_are_joined_by_their_artifacts(compose_job, tmp_path, read_offline_run, capsys):
    def offline(job):
        """Records of the only run of a job by their kind."""
        (log,) = (tmp_path / job).rglob("*.wandb")
        kinds = {}
        for kind, row in read_offline_run(log):
            if row.get("type") != "run_table":  # W&B's own, of the table of images
                kinds.setdefault(kind, []).append(row)
        return kinds

    collecting = compose_job("collect", *SMALL, *TINY[:1], "logger=wandb", f"paths.outputs={tmp_path}")
    collect(collecting)
    report_pairs(collecting)
    options = [*SMALL, *TINY, "logger=[csv,wandb]", f"folder={tmp_path}/train", "name='study/model=vit,seed=1'"]
    train(compose_job("train", *options, "sample_every_n_epochs=1", "evaluate=true", "evaluation.prompts.count=6"))
    few = ["prompts.count=6", "pipeline.steps=2", "~metric.reward", "evaluation.methods=[standard,npnet]"]
    judged = [*few, "logger=wandb", f"folder={tmp_path}/evaluate", f"npnet={tmp_path}/train"]
    evaluate_job(compose_job("evaluate", *judged, "name=judged"))
    assert "no effect" not in capsys.readouterr().err  # W&B's word for settings that it no longer knows
    collected, trained, evaluated = offline("collect"), offline("train"), offline("evaluate")

    (made,), (used, weights), (used_weights,) = (runs["artifact"] for runs in (collected, trained, evaluated))
    assert [made["type"], used["type"], weights["type"]] == ["dataset", "dataset", "model"]
    assert [made["used"], used["used"], weights["used"], used_weights["used"]] == [False, True, False, True]
    assert made["digest"] == used["digest"]
    assert weights["digest"] == used_weights["digest"] and weights["name"] == used_weights["name"]
    shards = {name: place for name, place in made["files"].items() if name.endswith(".tar")}
    assert shards == {n: f"file://{tmp_path}/pairs/{n}" for n in ("pairs-000000.tar", "pairs-000001.tar")}
    assert weights["files"].keys() == {"config.json", "diffusion_pytorch_model.safetensors"}
    copies = [path for folder in ("collect", "train") for path in (tmp_path / folder / "wandb").rglob("*.tar")]
    assert copies == []

    assert trained["run"][0] == {
        "name": "study/model=vit,seed=1",
        "group": "study",
        "type": "train",
        "tags": ["shapes"],
    }
    assert [runs["run"][0]["group"] for runs in (collected, evaluated)] == ["collect", "judged"]
    summary = {key: value for row in trained["summary"] for key, value in row.items()}
    record = json.loads((tmp_path / "train/run.json").read_text())
    assert summary["run/parameters"] == record["parameters"] > 0
    assert summary["run/seconds"] == record["seconds"] > 0
    results = json.loads((tmp_path / "train/evaluation/results.json").read_text())
    assert summary["eval/strict/npnet"] == results["methods"]["npnet"]["strict"]["mean"]
    config = next(row for row in trained["config"] if "pipeline" in row)
    assert config["recipe"]["epochs"] == 2
    validated, grids = ([row for row in trained["history"] if key in row] for key in ("val/explained", "samples"))
    assert max(row["val/explained"] for row in validated) == pytest.approx(record["explained"], rel=1e-6)

    assert [row["samples"]["captions"] for row in grids] == 2 * [["standard | golden"]]
    steps = [[row["trainer/global_step"] for row in rows] for rows in (validated, grids)]
    assert steps[0] == steps[1] and steps[0][0] < steps[0][1]
    for epoch, row in enumerate(grids):
        (media,) = (tmp_path / "train/wandb").glob(f"offline-run-*/files/{row['samples']['filenames'][0]}")
        with Image.open(media) as sent, Image.open(tmp_path / f"train/samples/epoch={epoch:04d}.png") as drawn:
            assert ImageChops.difference(sent.convert("RGB"), drawn.convert("RGB")).getbbox() is None


def test_the_same_pairs_are_the_same_version_wherever_they_lie(compose_job, tmp_path):
    collect(compose_job("collect", "prompts.count=8", "pipeline.steps=2"))
    shutil.copytree(tmp_path / "pairs", tmp_path / "elsewhere/pairs")
    one, two = (folder_artifact(ShardIndex.load(tmp_path / name)) for name in ("pairs", "elsewhere/pairs"))
    assert one.digest == two.digest
    assert one.name == two.name == "pairs-pairs"
