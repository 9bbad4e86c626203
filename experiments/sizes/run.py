"""Which way to fit helps when the noise has another size than an NPNet was trained on?

python -m experiments.sizes.run

The miniature's denoiser is convolutional, so the search runs at sizes that it was not trained on; what is measured is
the share of the search's move that each way predicts.
"""

import numpy as np
import torch
from scipy.stats import bootstrap
from tqdm import tqdm

from experiments.study import SEEDS, SMOKE, identifier, miniature, tabulate
from experiments.variants.run import networks as variants
from golden_noise.noise import draw_noise
from golden_noise.npnet import checkpoint
from golden_noise.npnet.core.sizes import FITS
from golden_noise.search.redenoise import Redenoise
from golden_noise.shapes.prompts import draw_prompts

SIZES = ((32, 32), (48, 48), (32, 64), (64, 64))  # pixels
COUNT, BATCH = 100 if SMOKE else 600, 100


@torch.inference_mode()
def errors(height: int, width: int, networks: dict[str, tuple[str, str]]) -> dict[str, np.ndarray]:
    """Per network the squared error of each of COUNT predicted moves, and under "move" the squared moves themselves."""
    pipeline = miniature(height=height, width=width)
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


def main() -> None:
    trained = variants(SEEDS[0])
    networks = {
        f"{name}, fit={fit}": (str(trained[identifier(name)]), fit)
        for name in ("svd_unet+unet", "unet")
        for fit in FITS
    }
    rows = []
    for height, width in SIZES:
        found = errors(height, width, networks)
        move = found.pop("move")
        for name, error in found.items():
            reach = bootstrap(
                (error, move), explained, paired=True, n_resamples=2000, rng=np.random.default_rng(0)
            ).confidence_interval
            share = f"{explained(error, move):.3f} [{reach.low:.3f}, {reach.high:.3f}]"
            rows.append({"pixels": f"{height}×{width}", "network": name, "explained": share})
    tabulate(__file__, rows)


if __name__ == "__main__":
    main()
