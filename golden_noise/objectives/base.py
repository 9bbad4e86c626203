"""The interface of an objective.

Shapes: B batch, C x H x W noise.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import Tensor

from golden_noise.npnet import AnyNPNet
from golden_noise.pipelines.lazy import LazyPipeline
from golden_noise.pipelines.prompt_embedding import PromptEmbedding

# Of a training: `noise` (B, C, H, W), `key` and `prompt` (B names and texts), and what the objective's data adds.
Batch = dict[str, Any]
Mode = Literal["min", "max"]


@dataclass(frozen=True)
class Outcome:
    """What an objective says of a batch.

    Attributes:
        loss: scalar, to minimise.
        golden: (B, C, H, W), what the network predicted.
        figures: further scalars to log, by name.
        noise: (B, C, H, W), what it was predicted from, where that is not the batch's.
        kept: (B,), which samples count, where not all do.
    """

    loss: Tensor
    golden: Tensor
    figures: dict[str, Tensor] = field(default_factory=dict)
    kept: Tensor | None = None
    noise: Tensor | None = None


class Objective(Protocol):
    """What a network learns from.

    Attributes:
        reads: "pairs" of a collection, with `golden` (B, C, H, W); "guided" latents (B, C, H, W) stored with pairs;
            "prompts", each with fresh noise in every epoch; or "scores" (B, group) of candidates, with their `seed` and
            `sigma`.
        monitor: the figure of the validation that decides which checkpoint is the best, and whether it should be high;
            None: the last one is.
        mode: see `monitor`.
    """

    reads: Literal["pairs", "guided", "prompts", "scores"]
    monitor: str | None
    mode: Mode

    def __call__(self, npnet: AnyNPNet, batch: Batch, prompt: PromptEmbedding, pipeline: LazyPipeline) -> Outcome:
        """The loss of a batch, with gradients to the network.

        Args:
            batch: see `reads`.
            prompt: of B prompts. With "pairs" it is what they hold, else all that the pipeline encodes.
            pipeline: which the images are drawn by; loaded if the objective needs it.
        """
        ...
