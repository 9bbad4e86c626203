"""The prompts of a job, which says what it has read before it works for long."""

import sys
from collections.abc import Sequence
from typing import Any

from hydra.utils import instantiate

from golden_noise.prompts.prompt import Prompt

SHOWN = 60  # letters of a caption


def load_prompts(settings: Any, noises: int = 1, quiet: bool = False) -> list[Prompt]:
    """Make the prompts of a config, and tell on stderr how many there are, with the first and the last.

    Args:
        settings: a config with `_target_`.
        noises: how many the job draws for each prompt that it gets.
        quiet: tell nothing, as all processes of a job but the first.
    """
    prompts: list[Prompt] = instantiate(settings)
    if prompts and not quiet:
        print(summary(prompts, settings.get("path"), settings.get("repeats", 1), noises), file=sys.stderr)
    return prompts


def summary(prompts: Sequence[Prompt], path: str | None, repeats: int = 1, noises: int = 1) -> str:
    """One line: `400 prompts from hpd.csv, 4 noises each (first: 'a red circle'; last: 'a cat')`."""
    source = f" from {path}" if path else ""
    each = f", {repeats * noises:,} noises each" if repeats * noises > 1 else ""
    first, last = (repr(_short(prompt.text)) for prompt in (prompts[0], prompts[-1]))
    count = len(prompts) // repeats
    return f"{count:,} prompt{'s' * (count > 1)}{source}{each} (first: {first}; last: {last})"


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
