"""The control `shuffled`: every image gets another prompt's noise, which shows whether the prompt matters."""

from collections.abc import Sequence

import numpy as np

from golden_noise.errors import UserError
from golden_noise.prompts import Prompt


def other_prompts(prompts: Sequence[Prompt]) -> list[Prompt]:
    """For every prompt one with another text, in a fixed random order.

    Each is used once, unless one text fills more than half of the list: then the others take turns there.

    Raises:
        UserError: all prompts are the same.
    """
    _, text_N, counts = np.unique([prompt.text for prompt in prompts], return_inverse=True, return_counts=True)
    if len(counts) < 2:
        raise UserError(
            "the method 'shuffled' needs at least two different prompts: add prompts or remove it from "
            "evaluation.methods"
        )
    rng = np.random.default_rng(0)
    frequent = counts.argmax()
    bijective = 2 * counts[frequent] <= len(prompts)
    order_N = _exchanged(text_N, rng) if bijective else _stand_ins(text_N == frequent, rng)
    return [prompts[i] for i in order_N]


def _exchanged(text_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A permutation that gives every position another text; no text may fill more than half of them."""
    order_N = rng.permutation(len(text_N))
    for i in np.flatnonzero(text_N[order_N] == text_N):
        if text_N[order_N[i]] != text_N[i]:
            continue  # fixed by an earlier exchange
        # Both positions then get another text. One to exchange with always exists: at most half of the positions have
        # this text, at most half get it, and position i is among both.
        fits = np.flatnonzero((text_N != text_N[i]) & (text_N[order_N] != text_N[i]))
        j = rng.choice(fits)
        order_N[i], order_N[j] = order_N[j], order_N[i]
    return order_N


def _stand_ins(frequent_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another text for every position where one fills more than half: the others are used equally often."""
    many, few = (rng.permutation(np.flatnonzero(mask_N)) for mask_N in (frequent_N, ~frequent_N))
    order_N = np.empty(len(frequent_N), np.int64)
    order_N[many], order_N[few] = np.resize(few, len(many)), many[: len(few)]
    return order_N
