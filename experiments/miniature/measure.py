"""Measure what the miniature's weights can do, from plain noise.

    python -m experiments.miniature.measure [weights=FOLDER] [count=1200] [figures=FILE.json] [sheet=FILE.png] ...

Prints the figures. figures= and sheet= name files for them and for a contact sheet at the best guidance.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from experiments.miniature.arguments import read_arguments
from golden_noise.hub import PACKAGE
from golden_noise.images import contact_sheet, to_pil
from golden_noise.metrics.pickscore import PickScore
from golden_noise.noise import draw_noise
from golden_noise.pipelines.sdxl import SDXLPipeline
from golden_noise.prompts import Prompt
from golden_noise.shapes.metric import ShapesScore
from golden_noise.shapes.prompts import draw_prompts
from golden_noise.shapes.scenes import SIZE, TASKS, sample_batch

DEFAULTS = {
    "weights": str(PACKAGE / "shapes/weights"),
    "count": 1200,  # held-out prompts, and drawn scenes
    "steps": 10,
    "guidance": [1.0, 1.5, 2.0, 2.5, 3.5, 5.5],
    "seed": 1,
    "figures": None,
    "sheet": None,
}
BATCH = 100
CHOICES = 64  # captions that the reward chooses among
EXAMPLES = 3  # images of each task in the sheet


@torch.no_grad()
def measure_autoencoder(pipeline: SDXLPipeline, count: int, seed: int) -> float:
    """Share of drawn scenes that the detector still reads right after encoding and decoding."""
    drawn, images = sample_batch(np.random.default_rng((seed, 20)), count)
    vae = pipeline.pipe.vae
    decoded = vae.decode(vae.encode(torch.from_numpy(images) * 2 - 1).latent_dist.mean).sample
    return float(ShapesScore(strict=True).score([request.text for request in drawn], decoded / 2 + 0.5).mean())


def draw(pipeline: SDXLPipeline, prompts: list[Prompt], guidance: float) -> torch.Tensor:
    """Images (B, 3, SIZE, SIZE) of prompts from plain noise."""
    batches = []
    for start in range(0, len(prompts), BATCH):
        batch = prompts[start : start + BATCH]
        noise = draw_noise([prompt.seed for prompt in batch], pipeline.latent_shape)
        batches.append(pipeline.sample(pipeline.encode([p.text for p in batch]), noise, guidance=guidance))
    return torch.cat(batches)


def measure_pipeline(pipeline: SDXLPipeline, prompts: list[Prompt], guidance: float) -> dict[str, float]:
    """Strict pass rate of plain noise, overall and by task."""
    scores = ShapesScore(strict=True).score([p.text for p in prompts], draw(pipeline, prompts, guidance)).numpy()
    of_task = {task: [p.tags["task"] == task for p in prompts] for task in TASKS}
    rates = {"all": scores.mean()} | {task: scores[chosen].mean() for task, chosen in of_task.items()}
    return {name: round(float(rate), 4) for name, rate in rates.items()}


@torch.no_grad()
def measure_reward(reward: PickScore, seed: int) -> float:
    """Share of drawn scenes whose own caption scores highest among CHOICES different ones."""
    drawn, images = sample_batch(np.random.default_rng((seed, 21)), 4 * CHOICES)
    unique = {request.text: image for request, image in zip(drawn, images, strict=True)}
    texts = list(unique)[:CHOICES]
    pixels = torch.from_numpy(np.stack([unique[text] for text in texts]))
    scores = torch.stack([reward.score([text] * len(texts), pixels) for text in texts])  # (caption, image)
    return float((scores.argmax(0) == torch.arange(len(texts))).float().mean())


def sheet(pipeline: SDXLPipeline, guidance: float, seed: int) -> Image.Image:
    """Samples from plain noise, each above its caption, every task equally often."""
    prompts = draw_prompts("test", EXAMPLES * len(TASKS), seed)
    images = to_pil(draw(pipeline, prompts, guidance))
    return contact_sheet([(prompt.text, image) for prompt, image in zip(prompts, images, strict=True)])


def main(arguments: list[str]) -> None:
    config = read_arguments(__doc__, DEFAULTS, arguments)
    weights = Path(config.weights)
    pipeline = SDXLPipeline.load(
        str(weights / "pipeline"), device="cpu", height=SIZE, width=SIZE, steps=config.steps, guidance=1.0
    )
    prompts = draw_prompts("test", config.count, config.seed)
    by_guidance = {w: measure_pipeline(pipeline, prompts, w) for w in tqdm(config.guidance, desc="guidance")}
    reward = PickScore(str(weights / "reward"), device="cpu")
    figures = {
        "count": config.count,
        "steps": config.steps,
        "autoencoder": {"strict": round(measure_autoencoder(pipeline, config.count, config.seed), 4)},
        "strict_by_guidance": {f"{w:g}": rates for w, rates in by_guidance.items()},
        "reward": {f"top1_of_{CHOICES}": round(measure_reward(reward, config.seed), 4)},
    }
    print(json.dumps(figures, indent=2))
    if config.figures:
        Path(config.figures).write_text(json.dumps(figures, indent=2) + "\n")
    if config.sheet:
        best = max(by_guidance, key=lambda w: by_guidance[w]["all"])
        sheet(pipeline, best, config.seed).save(config.sheet)


if __name__ == "__main__":
    main(sys.argv[1:])
