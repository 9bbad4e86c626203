"""The prompts of a job: the line it prints about them, and whether they suit its pipeline."""

import sys
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig

from golden_noise.prompts.prompt import Prompt

SHOWN = 60  # letters of a caption


def announce(prompts: Sequence[Prompt], settings: Any, noises: int = 1) -> None:
    """Print on stderr: `400 prompts from hpd.csv, 4 noises each (first: 'a red circle'; last: 'a cat')`.

    Args:
        prompts: one for each noise.
        settings: the config that they were made of; None if there is none.
        noises: how many the job draws for each prompt that it was given.
    """
    if prompts and settings is not None:
        path, each = settings.get("path"), settings.get("repeats", 1) * noises
        first, last = (repr(_short(prompt.text)) for prompt in (prompts[0], prompts[-1]))
        count = f"{len(prompts) // each:,} prompt{'s' * (len(prompts) // each > 1)}"
        drawn = f", {each:,} noises each" if each > 1 else ""
        print(f"{count}{f' from {path}' * bool(path)}{drawn} (first: {first}; last: {last})", file=sys.stderr)


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def of_another_pipeline(config: DictConfig, prompts: Any) -> bool:
    """Whether prompts are the miniature's captions and the pipeline is not the miniature."""
    target = prompts.get("_target_") if isinstance(prompts, DictConfig) else None
    return "golden_noise.shapes" in str(target) and not config.pipeline.bundled
