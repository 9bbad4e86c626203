"""Which way to fit helps when the noise has another size than an NPNet was trained on? On the miniature:

    python experiments/sizes/run.py NPNET OTHER_NPNET

NPNET is a trained network of the miniature (the bundled one in the table), OTHER_NPNET another, of model=unet. The
miniature's denoiser is convolutional, so the search runs at sizes that it was not trained on; what is measured is the
share of the search's move that each way predicts.
"""

import csv
import sys
from pathlib import Path

import numpy as np
import torch
from scipy.stats import bootstrap
from tqdm import tqdm

from golden_noise.noise import draw_noise
from golden_noise.npnet import checkpoint
from golden_noise.npnet.sizes import FITS
from golden_noise.pipelines.sdxl import SDXLPipeline
from golden_noise.search.redenoise import Redenoise
from golden_noise.shapes.prompts import draw_prompts

SIZES = ((32, 32), (48, 48), (32, 64), (64, 64))  # pixels
COUNT, BATCH = 600, 100


@torch.inference_mode()
def errors(height: int, width: int, networks: dict[str, tuple[str, str]]) -> dict[str, np.ndarray]:
    """Per network the squared error of each of COUNT predicted moves, and under "move" the squared moves themselves."""
    pipeline = SDXLPipeline.load(
        "package:shapes/weights/pipeline", device="cpu", height=height, width=width, steps=10, guidance=1.0
    )
    search = Redenoise(steps=10, denoising_guidance=5.5, inversion_guidance=1.0, rounds=1)
    loaded = {name: checkpoint.load(source, fit=fit) for name, (source, fit) in networks.items()}
    found: dict[str, list[float]] = {name: [] for name in ("move", *loaded)}
    prompts = draw_prompts("test", COUNT, seed=5)
    for start in tqdm(range(0, COUNT, BATCH), desc=f"{height}x{width}"):
        batch = prompts[start : start + BATCH]
        noise = draw_noise([prompt.seed for prompt in batch], pipeline.latent_shape)
        embedding = pipeline.encode([prompt.text for prompt in batch])
        golden = search.search(noise, embedding, pipeline)
        found["move"] += (golden - noise).square().mean((1, 2, 3)).tolist()
        for name, npnet in loaded.items():
            found[name] += (golden - npnet.golden(noise, embedding)).square().mean((1, 2, 3)).tolist()
    return {name: np.array(values) for name, values in found.items()}


def explained(error: np.ndarray, move: np.ndarray, axis: int = -1) -> np.ndarray:
    return 1 - error.sum(axis) / move.sum(axis)


def main(npnet: str, other: str) -> None:
    networks = {f"svd_unet+unet, fit={fit}": (npnet, fit) for fit in FITS}
    networks |= {f"unet, fit={fit}": (other, fit) for fit in FITS}
    rows = []
    for height, width in SIZES:
        found = errors(height, width, networks)
        move = found.pop("move")
        for name, error in found.items():
            interval = bootstrap(
                (error, move), explained, paired=True, n_resamples=2000, rng=np.random.default_rng(0)
            ).confidence_interval
            rows.append((f"{height}x{width}", name, explained(error, move), interval.low, interval.high))
            print("{} | {} | {:.3f} [{:.3f}, {:.3f}]".format(*rows[-1]))
    with Path(__file__).with_name("results.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("pixels", "network", "explained", "low", "high"))
        writer.writerows((size, name, *(f"{value:.4f}" for value in values)) for size, name, *values in rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
