"""Weights in prompts, written as in A1111's web UI: `(word)`, `(two words:1.3)`, `[word]`.

The syntax is that of https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/Features#attentionemphasis.
"""

import re

from golden_noise.errors import UserError, one_line

Fragments = list[tuple[str, float]]

MORE, LARGEST, DEEPEST = 1.1, 10.0, 50  # what a bracket multiplies by; the largest weight; brackets in one another
PARTS = re.compile(
    r"""\\(?P<letter>[\\()\[\]]) # a bracket or backslash as a letter
    |:\s*(?P<weight>[-+−–.,]*[.\d][^\s\\()\[\]:]*|[-+−–]*(?i:nan|inf|infinity))\s*\) # (words:1.3), and (words:1,3)
    |(?P<bracket>[()\[\]])
    |(?P<text>[^\\()\[\]:]+|.)""",
    re.VERBOSE | re.DOTALL,
)
# What A1111 reads otherwise, and nothing here can do.
FOREIGN = {
    "adapters": (re.compile(r"(?i)<(lora|lyco|hypernet):|<\w+:[^<>]+>"), "pipeline.model.loras adds adapters"),
    "chunks and joint prompts": (re.compile(r"\b(BREAK|AND)\b"), "write these words in small letters, or not at all"),
}
WEIGHT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")
EDITS = re.compile(r"(?<!\\)[:|]")  # in brackets, but in none within: [red:blue:0.5], [(red)|blue]


def parse(prompt: str) -> Fragments:
    """The fragments of a prompt with their weights, in order, equal ones joined.

    `(x)` multiplies the weight of x by 1.1, `[x]` divides it by 1.1, `(x:1.3)` multiplies it by 1.3. Brackets nest, and
    a backslash makes a letter of the next bracket.

    Raises:
        UserError: a bracket without its other half, a weight that is no number from 0 to 10, or what only A1111 can do.
    """
    for what, (pattern, advice) in FOREIGN.items():
        if found := pattern.search(prompt):
            raise _foreign(prompt, found[0], what, advice)
    fragments: Fragments = []
    opened: list[tuple[str, int, int]] = []  # bracket, place in the prompt, first fragment inside
    edited: set[int] = set()  # places of those that A1111 takes for editing
    for part in PARTS.finditer(prompt):
        bracket = part["bracket"] or (")" if part["weight"] else None)
        if bracket is None:
            if opened and opened[-1][0] == "[" and EDITS.search(prompt, *part.span()):
                edited.add(opened[-1][1])
            fragments.append((part["letter"] or part["text"], 1.0))
        elif bracket in "([":
            opened.append((bracket, part.start(), len(fragments)))
            if len(opened) > DEEPEST:
                raise _mistake(prompt, f"more than {DEEPEST} brackets are open at letter {part.start() + 1}")
        elif not opened or opened[-1][0] + bracket not in ("()", "[]"):
            where = f"{bracket} at letter {part.end()}"
            raise _mistake(prompt, f"{where} closes nothing; a bracket in the text is \\{bracket}")
        else:
            _, place, first = opened.pop()
            if place in edited:
                raise _foreign(prompt, prompt[place : part.end()], "editing", "the prompt is the same in every step")
            factor = _weight(prompt, part) if part["weight"] else MORE if bracket == ")" else 1 / MORE
            fragments[first:] = [(text, weight * factor) for text, weight in fragments[first:]]
    if opened:
        bracket, place, _ = opened[-1]
        raise _mistake(prompt, f"{bracket} at letter {place + 1} is never closed; a bracket in the text is \\{bracket}")
    if any(weight > LARGEST for _, weight in fragments):
        raise _mistake(prompt, f"a weight is above {LARGEST:g}")
    return _joined(fragments)


def _weight(prompt: str, part: re.Match[str]) -> float:
    """The weight in the end of (words:1.3)."""
    found = f"{one_line(part[0], 40)} at letter {part.start() + 1}"
    if not WEIGHT.fullmatch(part["weight"]):
        raise _mistake(prompt, f"{found} is no weight such as :1.3); if it is text, give a weight after it")
    if (weight := float(part["weight"])) < 0:
        raise _mistake(prompt, f"{found} is below 0: pipeline.negative_prompt takes what should not be seen")
    return weight


def _joined(fragments: Fragments) -> Fragments:
    joined: Fragments = []
    for text, weight in fragments:
        if joined and joined[-1][1] == weight:
            joined[-1] = joined[-1][0] + text, weight
        else:
            joined.append((text, weight))
    return joined


def _foreign(prompt: str, found: str, what: str, advice: str) -> UserError:
    return _mistake(prompt, f"{one_line(found, 60)} ({what}) is not supported: {advice}")


def _mistake(prompt: str, what: str) -> UserError:
    return UserError(f"prompt {one_line(prompt, 60)!r}: {what} (pipeline.prompt_syntax=plain reads all as text)")
