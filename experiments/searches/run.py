"""What does each search's golden noise gain, and what does it cost? On the miniature, from the top of the repository:

    python experiments/searches/run.py

Each row is an evaluation of standard noise against one search, on the same prompts and seeds. Killed, it goes on where
it was; finished evaluations are read from `outputs/evaluate/searches`.
"""

import csv
import json
import subprocess
import sys
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from golden_noise.noise import draw_noise
from golden_noise.pipelines.base import Pipeline
from golden_noise.shapes.prompts import draw_prompts

RUNS = Path("outputs/evaluate/searches")
COUNT = 2000  # prompts of an evaluation
BATCH = 4  # prompts that a search's calls are counted with
SEARCHES = ("redenoise", "zigzag", "full_inversion", "rescale", "best_of_n")


def evaluated(search: str) -> Path:
    """The folder of an evaluation, which is run unless it is there."""
    folder = RUNS / search
    if not (folder / "results.json").exists():
        options = [f"prompts.count={COUNT}", "evaluation.methods=[standard,search]", "logger=csv"]
        names = [f"name=searches/{search}", f"folder={folder}", f"search={search}"]
        subprocess.run([sys.executable, "evaluate.py", *names, *options], check=True)
    return folder


@torch.inference_mode()
def denoiser_calls(config: DictConfig) -> float:
    """Calls per noise of the search: a guided one, with and without prompt, counts twice."""
    config.pipeline.model.device = "cpu"
    pipeline: Pipeline = instantiate(config.pipeline.model)
    prompts = draw_prompts("test", BATCH)
    seen = []
    hook = pipeline.denoiser.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    noise = draw_noise([prompt.seed for prompt in prompts], pipeline.latent_shape)
    instantiate(config.search).search(noise, pipeline.encode([prompt.text for prompt in prompts]), pipeline)
    hook.remove()
    return sum(seen) / BATCH


def row(search: str, folder: Path) -> dict[str, object]:
    summary = json.loads((folder / "results.json").read_text())
    found = {c["metric"]: c for c in summary["comparisons"] if (c["a"], c["task"]) == ("standard", "all")}
    methods = summary["methods"]
    return {
        "search": search,
        "calls": f"{denoiser_calls(OmegaConf.create(summary['config'])):g}",
        "pairs": found["strict"]["n"],
        "standard": round(methods["standard"]["strict"]["mean"], 4),
        "golden": round(methods["search"]["strict"]["mean"], 4),
        "gain": round(found["strict"]["difference"], 4),
        "low": round(found["strict"]["ci95"][0], 4),
        "high": round(found["strict"]["ci95"][1], 4),
        "p": f"{found['strict']['p_value']:.2g}",
        "reward_gain": round(found["reward"]["difference"], 3),
        "reward_low": round(found["reward"]["ci95"][0], 3),
        "reward_high": round(found["reward"]["ci95"][1], 3),
    }


def main() -> None:
    rows = [row(search, evaluated(search)) for search in SEARCHES]
    with Path(__file__).with_name("results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    print("| search | denoiser calls | strict | gain [95 %] | gain of the reward |")
    print("| --- " * 5 + "|")
    for r in rows:
        gain = f"{r['gain']:+.3f} [{r['low']:+.3f}, {r['high']:+.3f}]"
        reward = f"{r['reward_gain']:+.2f} [{r['reward_low']:+.2f}, {r['reward_high']:+.2f}]"
        print(f"| {r['search']} | {r['calls']} | {r['golden']:.3f} | {gain} | {reward} |")


if __name__ == "__main__":
    main()
