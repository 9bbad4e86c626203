"""Where generate.py puts the images of one kind of noise: side by side, or as an evaluator of others looks for them."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from golden_noise.errors import UserError
from golden_noise.prompts import Prompt

SAMPLES = "samples"  # the folder of the images, for both evaluators
LONGEST = 240  # bytes of a prompt in a file name, whose number and ending take up to 15 of 255
KEPT = ("include", "exclude")  # what GenEval's prompts have beside a prompt and a tag


def flat(prompts: Sequence[Prompt], each: int) -> list[str]:
    """`000000_seed3`: number of the image and seed."""
    return [f"{prompt.index:06d}_seed{prompt.seed}" for prompt in prompts]


def geneval(prompts: Sequence[Prompt], each: int) -> list[str]:
    """`00000/samples/00000`: number of the prompt, and of its image.

    Ghosh et al. 2023, github.com/djghosh13/geneval.
    """
    return [f"{i // each:05d}/{SAMPLES}/{i % each:05d}" for i in range(len(prompts))]


def t2i_compbench(prompts: Sequence[Prompt], each: int) -> list[str]:
    """`CATEGORY/samples/PROMPT_000000`: its evaluators read one category at a time, and the prompt from the name.

    Huang et al. 2023, github.com/Karine-Huang/T2I-CompBench.

    Raises:
        UserError: a prompt or category that cannot be in a name.
    """
    count = Counter[str]()
    names = []
    for prompt in prompts:
        category = prompt.tags.get("task", "all")
        if unfit := next((text for text in (prompt.text, category) if not _is_name(text)), None):
            raise UserError(
                f"layout=t2i_compbench cannot name a file after {unfit[:50]!r}: no '/', line end or '.' at its start, "
                f"{LONGEST} bytes at most; use another layout"
            )
        if "_" in prompt.text:
            raise UserError(
                f"layout=t2i_compbench: its evaluators would cut {prompt.text[:50]!r} at the '_'; use another layout"
            )
        names.append(f"{category}/{SAMPLES}/{prompt.text}_{count[category]:06d}")
        count[category] += 1
    return names


def _is_name(text: str) -> bool:
    fits = len(text.encode()) <= LONGEST and not text.startswith(".")
    return fits and not any(sign in text for sign in "/\\\n\r\0")


#: Names of the images by layout, without ending, from the prompts in order and how many images each has.
LAYOUTS: dict[str, Callable[[Sequence[Prompt], int], list[str]]] = {
    "flat": flat,
    "geneval": geneval,
    "t2i_compbench": t2i_compbench,
}


def geneval_metadata(prompt: Prompt) -> str:
    """The line of GenEval's `evaluation_metadata.jsonl` that a prompt is of; of other prompts what is known."""
    facts: dict[str, Any] = {"tag": prompt.tags["task"]} if "task" in prompt.tags else {}
    facts |= {name: json.loads(prompt.tags[name]) for name in KEPT if name in prompt.tags}
    return json.dumps(facts | {"prompt": prompt.text}) + "\n"
