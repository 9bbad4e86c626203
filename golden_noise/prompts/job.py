"""The prompts of a job: what it says of them before it works for long, and whose they are."""

import sys
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig

from golden_noise.prompts.prompt import Prompt

SHOWN = 60  # letters of a caption


def announce(prompts: Sequence[Prompt], settings: Any, noises: int = 1) -> None:
    """Tell on stderr how many prompts there are, and the first and the last.

    Args:
        prompts: one for each noise.
        settings: the config that they were made of; None if there is none.
        noises: how many the job draws for each prompt that it was given.
    """
    if prompts and settings is not None:
        print(summary(prompts, settings.get("path"), settings.get("repeats", 1) * noises), file=sys.stderr)


def summary(prompts: Sequence[Prompt], path: str | None, each: int = 1) -> str:
    """One line: `400 prompts from hpd.csv, 4 noises each (first: 'a red circle'; last: 'a cat')`."""
    source = f" from {path}" if path else ""
    noises = f", {each:,} noises each" if each > 1 else ""
    first, last = (repr(_short(prompt.text)) for prompt in (prompts[0], prompts[-1]))
    count = len(prompts) // each
    return f"{count:,} prompt{'s' * (count > 1)}{source}{noises} (first: {first}; last: {last})"


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def of_another_pipeline(config: DictConfig, prompts: Any) -> bool:
    """Whether prompts are the miniature's captions and the pipeline is not the miniature."""
    target = prompts.get("_target_") if isinstance(prompts, DictConfig) else None
    return "golden_noise.shapes" in str(target) and not config.pipeline.bundled
