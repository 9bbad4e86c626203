"""How much the images of one prompt differ between seeds: a method must not always draw the same image.

Each prompt gives one mean pairwise distance per method; intervals resample prompts.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from scipy.spatial.distance import pdist
from torch import Tensor

from golden_noise.images import from_pil

SEEDS = 8  # images per prompt that are compared; distances grow with their square
PIXELS = 64  # larger images are compared at this size: distance then means composition, not grain


def seed_groups(prompts: Sequence[str]) -> list[list[int]]:
    """Positions of items with the same prompt, for prompts with at least two; at most SEEDS of each."""
    groups: dict[str, list[int]] = {}
    for position, prompt in enumerate(prompts):
        groups.setdefault(prompt, []).append(position)
    return [positions[:SEEDS] for positions in groups.values() if len(positions) > 1]


def pixel_distance(images: Sequence[Image.Image]) -> float:
    """Mean over pairs of the root mean squared difference, 0 (all the same) to 1 (black against white)."""
    small = len({image.size for image in images}) == 1 and max(images[0].size) <= PIXELS
    if not small:
        images = [image.convert("RGB").resize((PIXELS, PIXELS), Image.Resampling.BOX) for image in images]
    flat = from_pil(images).flatten(1).double().numpy()
    return float(pdist(flat).mean() / np.sqrt(flat.shape[1]))


def feature_distance(features: Tensor) -> float:
    """Mean over pairs of 1 - cosine of image features (B, D), 0 (the same direction) to 2 (opposite)."""
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    return float(np.clip(pdist(unit.cpu().numpy(), "sqeuclidean").mean() / 2, 0, 2))
