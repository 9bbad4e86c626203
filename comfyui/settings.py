"""What the nodes let users choose."""

from dataclasses import dataclass

OTHER_SIZES = ("tile", "crop", "resize")
LONG_PROMPT = ("truncate", "average", "chain")


@dataclass(frozen=True)
class Settings:
    """How a network is used: the options of `core`, and how far the noise is moved."""

    strength: float = 1.0  # 0 leaves the noise, 1 makes it golden, 2 moves it twice as far
    other_sizes: str = OTHER_SIZES[0]
    long_prompt: str = LONG_PROMPT[0]
