"""Noise seeds for prompts without one: equal captions never get one twice, learning and evaluation share none."""

import hashlib
import itertools
import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, get_args

from golden_noise.errors import UserError
from golden_noise.prompts.prompt import Prompt

Use = Literal["learning", "evaluation"]
BITS = 32  # torch's CPU generator reads no more


class NoiseSeeds:
    """Draws seeds by a hash of what they are for, so that no prompt's depends on the other prompts around it.

    The lowest bit holds the use. The seeds of one caption are distinct; two captions may meet by chance.

    Args:
        seed: any integer; another one gives other seeds.
    """

    def __init__(self, seed: int, use: Use) -> None:
        if use not in get_args(Use):
            raise UserError(f"prompts.use={use} must be one of {', '.join(get_args(Use))}")
        self.seed, self.use = seed, use
        self._taken: defaultdict[str, set[int]] = defaultdict(set)

    def keep(self, text: str, seed: int) -> None:
        """Never draw `seed` for this caption: it is its own already."""
        self._taken[text].add(seed % 2**BITS)

    def draw(self, text: str, *numbers: int) -> int:
        """A seed from 0 to 2^32 - 1 for a caption, new to it; `numbers` distinguish its noises."""

        def candidate(attempt: int) -> int:
            key = json.dumps([self.seed, self.use, text, *numbers, attempt])
            bits = int.from_bytes(hashlib.sha256(key.encode()).digest()[: BITS // 8], "big")
            return bits & ~1 | get_args(Use).index(self.use)

        seed = next(seed for seed in map(candidate, itertools.count()) if seed not in self._taken[text])
        self._taken[text].add(seed)
        return seed


def next_seeds(prompts: Sequence[Prompt], count: int) -> list[list[int]]:
    """`count` seeds for every prompt: its own, and the next ones that no prompt of the same text has."""
    taken: defaultdict[str, set[int]] = defaultdict(set)
    for prompt in prompts:
        taken[prompt.text].add(prompt.seed % 2**BITS)
    seeds = []
    for prompt in prompts:
        free = (seed for seed in itertools.count(prompt.seed + 1) if seed % 2**BITS not in taken[prompt.text])
        chosen = [prompt.seed, *itertools.islice(free, count - 1)]
        taken[prompt.text].update(seed % 2**BITS for seed in chosen)
        seeds.append(chosen)
    return seeds
