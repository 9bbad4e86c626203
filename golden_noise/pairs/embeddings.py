"""Prompt embeddings that are not stored with the pairs: encoded by the batch that needs them."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from golden_noise.pipelines.prompt_embedding import PromptEmbedding  # loads diffusers

Encode = Callable[[Sequence[str]], "PromptEmbedding"]


class PromptEncoder:
    """A frozen text encoder that remembers the first prompts it sees.

    The latest ones would be the wrong ones: where every prompt comes once per epoch, they are needed last.

    Args:
        encode: encodes B prompts at once.
        capacity: how many prompts to remember.
        pooled: whether pooled embeddings are wanted too.
    """

    def __init__(self, encode: Encode, capacity: int, pooled: bool = False):
        self.encode, self.capacity = encode, capacity
        self.names = ("embeds", "pooled") if pooled else ("embeds",)
        self._known: dict[str, list[Tensor]] = {}

    def __call__(self, prompts: Sequence[str], device: torch.device) -> dict[str, Tensor]:
        """`embeds` (B, L, D) and, if wanted, `pooled` (B, P), on the device and in the encoder's dtype."""
        rows = {prompt: self._known[prompt] for prompt in prompts if prompt in self._known}
        if missing := [prompt for prompt in dict.fromkeys(prompts) if prompt not in rows]:
            encoded = self.encode(missing)
            parts = [getattr(encoded, name).to(device) for name in self.names]
            rows |= {prompt: [part[i] for part in parts] for i, prompt in enumerate(missing)}
            for prompt in missing[: max(0, self.capacity - len(self._known))]:
                self._known[prompt] = [row.clone() for row in rows[prompt]]  # a view would keep the whole batch
        return {name: torch.stack([rows[prompt][i] for prompt in prompts]) for i, name in enumerate(self.names)}
