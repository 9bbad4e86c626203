"""What the nodes let users choose."""

from dataclasses import dataclass

from .core.options import check_choice

OTHER_SIZES = ("tile", "crop", "resize")
LONG_PROMPT = ("truncate", "average", "chain")


@dataclass(frozen=True)
class Settings:
    """How a network is used: the options of `core`, and how far the noise is moved."""

    strength: float = 1.0  # 0 leaves the noise, 1 makes it golden, 2 moves it twice as far
    other_sizes: str = OTHER_SIZES[0]
    long_prompt: str = LONG_PROMPT[0]

    def __post_init__(self) -> None:
        """Refuses what is no choice: ComfyUI 0.3.75 does not look at it when a workflow is queued by HTTP."""
        check_choice("other_sizes", self.other_sizes, OTHER_SIZES)
        check_choice("long_prompt", self.long_prompt, LONG_PROMPT)
