"""A prompt of a collection."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Prompt:
    """One prompt of a collection.

    `index` is unique in the collection, `seed` draws the initial noise, and `tags` may name a "task" and a "file".
    """

    index: int
    text: str
    seed: int
    tags: dict[str, str] = field(default_factory=dict)
