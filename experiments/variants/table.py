"""The table of the variants from the runs of run.sh: results.csv and a Markdown table on stdout."""

import csv
import json
import time
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from golden_noise.npnet import checkpoint
from golden_noise.pipelines.base import Pipeline

RUNS, EVALUATIONS = Path("outputs/train/variants"), Path("outputs/evaluate/variants")
BATCH = 64


def explained(run: Path) -> float:
    """The best val/explained of a training."""
    rows = [row for log in run.glob("csv/version_*/metrics.csv") for row in csv.DictReader(log.open())]
    return max(float(row["val/explained"]) for row in rows if row.get("val/explained"))


def forward_ms(run: Path) -> tuple[int, float]:
    """Trained parameters, and milliseconds of one forward pass of BATCH noises on one thread (the best of 10)."""
    config = OmegaConf.load(run / "config.yaml")
    config.pipeline.model.device = "cpu"
    pipeline: Pipeline = instantiate(config.pipeline.model)
    npnet = checkpoint.load(str(run / "npnet/best"), load_pipeline=lambda: pipeline)
    prompt = pipeline.encode(["a red circle"] * BATCH)
    noise = torch.randn(BATCH, *pipeline.latent_shape, generator=torch.Generator().manual_seed(0))
    times = []
    with torch.inference_mode():
        for _ in range(10):
            start = time.perf_counter()
            npnet.golden(noise, prompt)
            times.append(time.perf_counter() - start)
    return sum(parameter.numel() for parameter in npnet.parameters()), 1000 * min(times)


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for evaluation in sorted(EVALUATIONS.glob("seed-*/results.json")):
        seed = evaluation.parent.name.removeprefix("seed-")
        summary = json.loads(evaluation.read_text())
        for c in summary["comparisons"]:
            if (c["metric"], c["a"], c["task"]) != ("strict", "standard", "all"):
                continue
            run = next((r for r in RUNS.glob(f"*-{seed}") if r.name.replace("+", "_") == f"{c['b']}-{seed}"), None)
            count, ms = forward_ms(run) if run else (None, None)
            rows.append(
                {
                    "variant": run.name.removesuffix(f"-{seed}") if run else c["b"],
                    "seed": seed,
                    "explained": round(explained(run), 3) if run else 1.0,
                    "gain": round(c["difference"], 4),
                    "low": round(c["ci95"][0], 4),
                    "high": round(c["ci95"][1], 4),
                    "parameters": count,
                    "ms": ms and round(ms, 1),
                }
            )
    rows.sort(key=lambda row: (row["variant"], row["seed"]))
    with Path(__file__).with_name("results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    print("| variant | seed | explained | strict gain [95 %] | parameters | ms per 64 |")
    print("| --- " * 6 + "|")
    for row in rows:
        gain = f"{row['gain']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
        cells = [row["variant"], row["seed"], row["explained"], gain, row["parameters"] or "–", row["ms"] or "–"]
        print(f"| {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    main()
