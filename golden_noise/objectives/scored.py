"""Scores that people gave: `objective=policy` for one round of candidates, drawn before and scored by hand."""

from dataclasses import dataclass
from typing import Literal

from golden_noise.npnet import AnyNPNet
from golden_noise.objectives.base import Batch, Mode, Outcome
from golden_noise.objectives.policy import group_offsets, policy_loss
from golden_noise.objectives.reward import moved
from golden_noise.pipelines.lazy import LazyPipeline
from golden_noise.pipelines.prompt_embedding import PromptEmbedding


@dataclass(frozen=True)
class Scored:
    """Moves predictions towards the candidates that people scored above their group's average.

    Candidates lie around the prediction of the network that drew them, with which the training starts. As it goes on,
    the offsets stay: a group's advantages sum to zero, so that the gradient by the prediction is the same wherever the
    prediction has moved. (They are cut at 5 deviations, which 26 candidates and fewer do not reach.)

    Args:
        path: the table of scores that `generate.py noise=candidates` wrote.
        beta: weight of the penalty on the move, as in `objective=reward`.
        scale: likewise.
    """

    path: str
    beta: float = 1.0
    scale: float = 1.0
    reads: Literal["scores"] = "scores"
    monitor: str | None = None
    mode: Mode = "min"

    def __call__(self, npnet: AnyNPNet, batch: Batch, prompt: PromptEmbedding, pipeline: LazyPipeline) -> Outcome:
        golden, scores = npnet.golden(batch["noise"], prompt), batch["scores"].T
        # Of the noise as it was drawn from, whatever precision the training has.
        offsets = group_offsets(pipeline.loaded.draw_noise(batch["seed"]), len(scores)).to(golden)
        penalty = moved(golden, self.scale * batch["noise"])
        loss = policy_loss(golden, offsets, batch["sigma"].to(golden), scores.to(golden.device)) + self.beta * penalty
        return Outcome(loss, golden, {"penalty": penalty})
