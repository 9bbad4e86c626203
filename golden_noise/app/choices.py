"""What a visitor chooses, and the limits of it. It comes from strangers: from the page, or from a program like it."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self

from golden_noise.errors import UserError
from golden_noise.prompts import Prompt

MOST_SEEDS = 2**32  # torch's CPU generator reads 32 bits


@dataclass(frozen=True)
class Limits:
    """The most that a visitor may ask for.

    Attributes:
        steps: of the sampler.
        seeds: of a grid.
        calls: denoiser calls of a search.
        letters: of a prompt.
        guidance: of the sampler.
        strength: of the move to golden noise.
        factor: of the constant.
    """

    steps: int = 50
    seeds: int = 8
    calls: int = 2_000
    letters: int = 300
    guidance: float = 20.0
    strength: float = 2.0
    factor: float = 1.5


@dataclass(frozen=True)
class Choice:
    """What a visitor chose, checked.

    Attributes:
        network: the name of one of the networks offered.
        strength: how far golden noise moves, see `generation.methods.moved`.
        factor: what standard noise is multiplied by for the third picture; 1: there is none.
        scores: names of metrics.
    """

    prompt: str
    seed: int
    steps: int
    guidance: float
    network: str
    strength: float = 1.0
    factor: float = 1.0
    scores: tuple[str, ...] = ()

    @classmethod
    def checked(
        cls, limits: Limits, networks: Collection[str], metrics: Collection[str], given: Mapping[str, Any]
    ) -> Self:
        """A choice of values that may be anything.

        Raises:
            UserError: a value is of another type, beyond the limits, or none of what is offered.
        """
        return cls(
            prompt=text("The prompt", given["prompt"], limits.letters),
            seed=whole("The seed", given["seed"], 0, MOST_SEEDS - 1),
            steps=whole("Steps", given["steps"], 1, limits.steps),
            guidance=number("Guidance", given["guidance"], 0, limits.guidance),
            network=one_of("The network", given["network"], networks),
            strength=number("The strength", given["strength"], 0, limits.strength),
            factor=number("The factor", given["factor"], 0.1, limits.factor),
            scores=several("The scores", given["scores"], metrics),
        )

    def prompts(self, count: int = 1) -> list[Prompt]:
        """The prompt with the chosen seed, and with the next ones.

        Raises:
            UserError: there are no such seeds.
        """
        last = self.seed + count - 1
        if last >= MOST_SEEDS:
            raise UserError(f"The seed must be at most {MOST_SEEDS - count:,} for {count} seeds in a row.")
        return [Prompt(index, self.prompt, seed) for index, seed in enumerate(range(self.seed, last + 1))]


def text(what: str, value: Any, most: int) -> str:
    """Text of at most so many letters, with single spaces.

    Raises:
        UserError: it is empty, too long, or no text.
    """
    words = " ".join(value.split()) if isinstance(value, str) else ""
    if not words:
        raise UserError(f"{what} is empty: write what the picture is to show.")
    if len(words) > most:
        raise UserError(f"{what} has {len(words):,} letters, of at most {most:,}: shorten it.")
    if any(letter < " " or letter == "\x7f" or "\ud800" <= letter <= "\udfff" for letter in words):
        raise UserError(f"{what} has letters that are no text: type it anew.")
    return words


def whole(what: str, value: Any, least: int, most: int) -> int:
    """A whole number in a range.

    Raises:
        UserError: it is not.
    """
    found = _finite(value)
    if found is None or found != int(found) or not least <= found <= most:
        raise UserError(f"{what} must be a whole number from {least:,} to {most:,}.")
    return int(found)


def number(what: str, value: Any, least: float, most: float) -> float:
    """A number in a range.

    Raises:
        UserError: it is not.
    """
    found = _finite(value)
    if found is None or not least <= found <= most:
        raise UserError(f"{what} must be a number from {least:g} to {most:g}.")
    return round(found, 3)


def one_of(what: str, value: Any, offered: Collection[str]) -> str:
    """One of the names offered.

    Raises:
        UserError: it is not.
    """
    if not isinstance(value, str) or value not in offered:
        raise UserError(f"{what} must be one of those offered: reload the page.")
    return value


def several(what: str, values: Any, offered: Collection[str]) -> tuple[str, ...]:
    """Some of the names offered, in their order.

    Raises:
        UserError: one is not, or it is no list.
    """
    if not isinstance(values, list | tuple):
        raise UserError(f"{what} must be a list of those offered: reload the page.")
    chosen = {one_of(what, value, offered) for value in values}
    return tuple(name for name in offered if name in chosen)


def _finite(value: Any) -> float | int | None:
    """A number that is one; None for anything else."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None
