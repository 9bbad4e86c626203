"""The sections, and the time that each may take on one H100."""

from dataclasses import dataclass

SCRATCH = "scratch"  # in the folder of the results, until all sections are complete


@dataclass(frozen=True)
class Section:
    """A module beside this one, whose `run(day)` adds rows.

    Attributes:
        seconds: that it may take, imports included. What earlier sections leave over is added.
    """

    module: str
    title: str
    seconds: int


SECTIONS = {
    "a": Section("suite", "the tests that differ on CUDA", 110),
    "b": Section("decompositions", "ways to decompose 64 noises", 30),
    "c": Section("forward", "NPNet beside a generation with SDXL", 95),
    "d": Section("training", "a training step beside the published one, and the reader", 110),
    "e": Section("collection", "collecting by batch size", 40),
    "f": Section("gradients", "steps through the denoiser, with and without checkpointing", 55),
    "g": Section("evaluation", "drawing and scoring images", 40),
}
