"""What each logger has stored, by its own reader."""

import csv
import io
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from PIL import Image


@dataclass
class Logged:
    """Everything in the runs of a folder, of which the newest is last."""

    metrics: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)  # of the newest run; those that are no text may be one
    grids: list[tuple[int, Image.Image]] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=list)  # of the newest table; images as such
    names: list[str] = field(default_factory=list)
    groups: set[str] = field(default_factory=set)


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def read_csv(folder: Path, project: str) -> Logged:
    found = Logged()
    for version in sorted((folder / "csv").iterdir()):
        found.names.append(version.name)
        found.settings = yaml.safe_load((version / "hparams.yaml").read_text("utf-8"))
        with (version / "metrics.csv").open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                step = int(row.pop("step"))
                for name, value in row.items():
                    if value:
                        found.metrics.setdefault(name, []).append((step, float(value)))
    return found


def read_tensorboard(folder: Path, project: str) -> Logged:
    """The images of a table are one grid: each row of it is the last cell of a row."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    events = EventAccumulator(str(folder / "tensorboard"), {"tensors": 0, "images": 0, "scalars": 0}).Reload()
    tags = events.Tags()
    metrics = {name: [(event.step, event.value) for event in events.Scalars(name)] for name in tags["scalars"]}
    found = Logged(metrics, names=["tensorboard"])
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    for name, value in HParamsPluginData.FromString(content).session_start_info.hparams.items():
        found.settings[name] = getattr(value, value.WhichOneof("kind"))

    def images(name):
        shown = [(event.step, event.encoded_image_string) for event in events.Images(name)]
        return [(step, Image.open(io.BytesIO(data)).convert("RGB")) for step, data in shown]

    found.grids = images("samples") if "samples" in tags["images"] else []
    if "eval/images/text_summary" in tags["tensors"]:
        text = events.Tensors("eval/images/text_summary")[-1].tensor_proto.string_val[0].decode()
        found.columns, _, *found.rows = ([cell.strip() for cell in line[1:-1].split("|")] for line in text.splitlines())
    if "eval/images" in tags["images"]:
        (_, grid) = images("eval/images")[-1]
        found.columns.append("images")
        height = grid.height // len(found.rows)
        for i, row in enumerate(found.rows):
            row.append(grid.crop((0, i * height, grid.width, (i + 1) * height)))
    return found


def read_mlflow(folder: Path, project: str) -> Logged:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name(project).experiment_id
    found = Logged()
    for run in reversed(client.search_runs(experiment)):
        run_id, found.settings = run.info.run_id, run.data.params
        found.names.append(run.info.run_name)
        found.groups.add(run.data.tags["group"])
        for name in run.data.metrics:
            history = client.get_metric_history(run_id, name)
            found.metrics.setdefault(name, []).extend((each.step, each.value) for each in history)
        artifacts = Path(client.download_artifacts(run_id, ""))
        for path in sorted(artifacts.glob("images/samples+step+*.png"), key=lambda path: int(path.name.split("+")[2])):
            found.grids.append((int(path.name.split("+")[2]), opened(path)))
        if tables := sorted(artifacts.glob("eval/images*.json"), key=lambda path: len(path.name)):
            table = client.load_table(experiment, f"eval/{tables[-1].name}", [run_id])
            found.columns = [*table.columns]
            found.rows = [[_seen(cell, artifacts, "filepath") for cell in row] for row in table.itertuples(index=False)]
    return found


def read_trackio(folder: Path, project: str) -> Logged:
    from trackio import Api
    from trackio.sqlite_storage import SQLiteStorage
    from trackio.utils import MEDIA_DIR

    found = Logged()
    for run in Api().runs(project):
        found.names.append(run.name)
        found.settings = run.config
        found.groups.add(run.config["_Group"])
        for row in SQLiteStorage.get_logs(project, run.name, run_id=run.id):
            step = row.pop("step")
            if "samples" in row:
                found.grids.append((step, _seen(row.pop("samples"), MEDIA_DIR, "file_path")))
            if "eval/images" in row:
                rows = row.pop("eval/images")["_value"]
                found.columns = [*rows[0]] if rows else []
                found.rows = [[_seen(cell, MEDIA_DIR, "file_path") for cell in row.values()] for row in rows]
            for name, value in row.items():
                if isinstance(value, int | float):
                    found.metrics.setdefault(name, []).append((step, value))
    return found


def _seen(cell: Any, folder: Path, key: str) -> Any:
    return opened(folder / cell[key]) if isinstance(cell, dict) else cell


def read_wandb(folder: Path, project: str, read_offline_run: Any) -> Logged:
    """`read_offline_run`: the fixture; figures have no step, so that theirs is 0."""
    found = Logged()
    for log in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        files = log.parent / "files"
        records = read_offline_run(log)
        found.settings = {name: value for kind, row in records if kind == "config" for name, value in row.items()}
        for kind, row in records:
            if kind == "run" and row["name"]:
                found.names.append(row["name"])
                found.groups.add(row["group"])
            if kind == "history":
                step = row.get("trainer/global_step", 0)
                if "samples" in row:
                    found.grids.append((step, opened(files / row["samples"]["filenames"][0])))
                for name, value in row.items():
                    if isinstance(value, int | float) and not name.startswith("_"):
                        found.metrics.setdefault(name, []).append((step, value))
            if kind == "artifact" and row["type"] == "run_table":
                stored = {name: Path(path) for name, path in row["files"].items()}
                table = json.loads(stored["eval/images.table.json"].read_text("utf-8"))
                found.columns = table["columns"]
                cells = [[stored[c["path"]] if isinstance(c, dict) else c for c in line] for line in table["data"]]
                found.rows = [[opened(cell) if isinstance(cell, Path) else cell for cell in line] for line in cells]
            if kind == "summary":
                for name, value in row.items():
                    if name.startswith(("eval/", "run/")) and isinstance(value, int | float):
                        found.metrics[name] = [(0, value)]
    return found


READERS = {"csv": read_csv, "tensorboard": read_tensorboard, "mlflow": read_mlflow, "trackio": read_trackio}
