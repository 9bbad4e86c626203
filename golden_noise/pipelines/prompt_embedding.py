"""Encoded prompts.

Shapes: B batch, L tokens, D width of the prompt embedding.
"""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

# The parts of a PromptEmbedding as diffusers' calls name them.
ARGUMENTS = {
    "embeds": "prompt_embeds",
    "pooled": "pooled_prompt_embeds",
    "mask": "prompt_attention_mask",
    "embeds_2": "prompt_embeds_2",
    "mask_2": "prompt_attention_mask_2",
}


@dataclass(frozen=True)
class PromptEmbedding:
    """Encoded prompts: all that a denoiser sees of them. Parts that a family does not have are None."""

    embeds: Tensor  # (B, L, D), what NPNet sees
    pooled: Tensor | None = None  # (B, P)
    mask: Tensor | None = None  # (B, L), 1 where `embeds` has a token and 0 where padding
    embeds_2: Tensor | None = None  # (B, L2, D2), of a second text encoder that NPNet does not see
    mask_2: Tensor | None = None  # (B, L2)
    negative: "PromptEmbedding | None" = None  # what guidance leads away from; None where there will be no guidance
    texts: tuple[str, ...] = ()  # B prompts, for searches that judge images

    def __len__(self) -> int:
        return len(self.embeds)

    def __getitem__(self, index: slice | Tensor | list[int]) -> "PromptEmbedding":
        """The same for a part of the batch, or for the batch in another order."""
        texts = tuple(self.texts[i] for i in torch.arange(len(self))[index].tolist()) if self.texts else ()
        negative = None if self.negative is None else self.negative[index]
        chosen: dict[str, Any] = {name: part[index] for name, part in self.tensors.items()}
        return PromptEmbedding(**chosen, negative=negative, texts=texts)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The parts that there are, by name, without those of `negative`."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: part for name, part in parts.items() if isinstance(part, Tensor)}

    def to(self, device: torch.device, dtype: torch.dtype) -> "PromptEmbedding":
        """The same on another device and in another floating dtype, without `negative`; masks keep their integers."""
        moved: dict[str, Any] = {
            name: part.to(device, dtype) if part.is_floating_point() else part.to(device)
            for name, part in self.tensors.items()
        }
        return PromptEmbedding(**moved, texts=self.texts)

    def after_negative(self) -> "PromptEmbedding":
        """One batch of 2 B: the negative half, then the prompts, as diffusers joins them for guidance."""
        assert self.negative is not None, "encoded without the negative part that guidance needs"
        other = self.negative.tensors
        joined: dict[str, Any] = {name: torch.cat([other[name], part]) for name, part in self.tensors.items()}
        return PromptEmbedding(**joined)
