"""What does each search's golden noise gain, and what does it cost?

python -m experiments.searches.run
"""

import json
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from experiments.study import ALONE, evaluated, gain, interval, mean, scores, tabulate
from golden_noise.noise import draw_noise
from golden_noise.pipelines.base import Pipeline
from golden_noise.shapes.prompts import draw_prompts

BATCH = 4  # prompts that a search's calls are counted with
SEARCHES = ("redenoise", "zigzag", "full_inversion", "rescale", "best_of_n")  # with their default settings


def method(search: str) -> str:
    """Its name in an evaluation, where best_of_n is one of another kind."""
    return f"by_{search}"


@torch.inference_mode()
def denoiser_calls(config: DictConfig, search: str) -> float:
    """Calls per noise of a search: a guided one, with and without prompt, counts twice."""
    config.pipeline.model.device = "cpu"
    pipeline: Pipeline = instantiate(config.pipeline.model)
    prompts = draw_prompts("test", BATCH)
    seen = []
    pipeline.denoiser.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    noise = draw_noise([prompt.seed for prompt in prompts], pipeline.latent_shape)
    found = instantiate(config.evaluation.searches[method(search)])
    found.search(noise, pipeline.encode([prompt.text for prompt in prompts]), pipeline)
    return sum(seen) / BATCH


def row(folder: Path, search: str, config: DictConfig) -> dict[str, object]:
    changes = {
        metric: gain(scores(folder, "standard", metric), scores(folder, method(search), metric))
        for metric in ("strict", "reward")
    }
    return {
        "search": search,
        "denoiser calls": f"{denoiser_calls(config, search):g}",
        "strict": f"{mean(scores(folder, method(search))):.3f}",
        "gain": interval(changes["strict"]),
        "gain of the reward": interval(changes["reward"]),
    }


def main() -> None:
    searches = {method(name): [name] for name in SEARCHES}
    folder = evaluated("searches", ALONE, searches=searches)
    config = OmegaConf.create(json.loads((folder / "results.json").read_text())["config"])
    tabulate(__file__, [row(folder, search, config) for search in SEARCHES])


if __name__ == "__main__":
    main()
