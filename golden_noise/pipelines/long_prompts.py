"""Prompts with weights, or longer than a CLIP reads, encoded by compel (https://github.com/damian0815/compel, MIT).

A chunk is what a CLIP reads at once: 75 tokens between two marks, 77 in all. A prompt is cut into chunks between words;
those are encoded one by one, and their embeddings joined. An empty chunk fills up what a prompt does not need: how many
chunks there are is a setting, so that an image does not depend on the other prompts of its batch. A fragment of weight
w moves from the embedding of the empty prompt (w > 1: beyond its own), or towards that without the fragment (w < 1).

Shapes: N chunks, L tokens of a chunk, D numbers per token, P of the pooled embedding.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from golden_noise.errors import UserError, first_line, one_line
from golden_noise.pipelines.prompt_embedding import PromptEmbedding
from golden_noise.pipelines.prompt_syntax import Fragments, parse


def check_choice(pipeline: Any, syntax: str, chunks: int) -> None:
    """Refuse what a family, given by its class or a pipeline, or this installation cannot encode.

    Raises:
        UserError: text encoders that are no CLIPs, or no compel.
    """
    if syntax == "plain" and chunks == 1:
        return
    chosen = f"pipeline.prompt_syntax={syntax}" if syntax != "plain" else f"pipeline.prompt_chunks={chunks}"
    if pipeline.clip_layer is None:
        raise UserError(
            f"{chosen}: only Stable Diffusion 1.x, 2.x and SDXL have it, whose text encoders are CLIPs; the others "
            "read longer prompts by themselves"
        )
    try:
        import compel  # noqa: F401, an extra
    except ImportError as error:
        raise UserError(f"{chosen} needs compel: pip install 'golden-noise[prompts]'") from error


def encode(
    pipeline: Any, prompts: Sequence[str], negative: Sequence[str] | None, syntax: str, chunks: int
) -> PromptEmbedding:
    """Encode prompts, each by itself, and negative ones; None as for `Pipeline._encode`.

    Raises:
        UserError: see `check_choice` and `parse`; a prompt that compel cannot encode.
    """
    check_choice(pipeline, syntax, chunks)
    clips = _Clips(pipeline, syntax, chunks)
    embedding = clips.encode(prompts)
    if negative is None and pipeline.pipe.config.get("force_zeros_for_empty_prompt"):
        zeros: dict[str, Any] = {name: torch.zeros_like(tensor) for name, tensor in embedding.tensors.items()}
        return replace(embedding, negative=PromptEmbedding(**zeros))
    return replace(embedding, negative=clips.encode(negative or [""] * len(prompts)))


class _Clips:
    """The text encoders of a pipeline, which read the same text side by side."""

    def __init__(self, pipeline: Any, syntax: str, chunks: int):
        from compel import EmbeddingsProvider, ReturnedEmbeddingsType, SplitLongTextMode

        class Provider(EmbeddingsProvider):
            @classmethod
            def apply_embedding_weights(cls, embeddings: Tensor, *arguments: Any, **options: Any) -> Tensor:
                # In float16, two fragments of weight 0 would overflow: their shares are tangents near a pole.
                return super().apply_embedding_weights(embeddings.float(), *arguments, **options)

        self.pipeline, self.syntax, self.chunks = pipeline, syntax, chunks
        pipe = pipeline.pipe
        self.providers = [
            Provider(
                getattr(pipe, f"tokenizer{number}"),
                getattr(pipe, f"text_encoder{number}"),
                truncate=False,
                returned_embeddings_type=ReturnedEmbeddingsType[pipeline.clip_layer],
                split_long_text_mode=SplitLongTextMode.WORDS,
                device=pipeline.device,
            )
            for number in ("", "_2")
            if hasattr(pipe, f"text_encoder{number}")
        ]

    def encode(self, prompts: Sequence[str]) -> PromptEmbedding:
        """`embeds` (B, N L, D) and, if the family has it, `pooled` (B, P), which has no weights."""
        known: dict[str, dict[str, Tensor]] = {}
        for prompt in prompts:
            if prompt not in known:
                known[prompt] = self._parts(prompt)
        rows = [known[prompt] for prompt in prompts]
        parts: dict[str, Any] = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
        return PromptEmbedding(**parts)

    def _parts(self, prompt: str) -> dict[str, Tensor]:
        fragments = parse(prompt) if self.syntax == "weighted" else [(prompt, 1.0)]
        try:
            embeds = torch.cat([self._embeds(provider, fragments, prompt) for provider in self.providers], dim=-1)
            parts = {"embeds": embeds.to(self.pipeline.device)}
            if "pooled" in self.pipeline.conditions:
                text = "".join(text for text, _ in fragments)
                parts["pooled"] = self.providers[-1].get_pooled_embeddings([text], device=self.pipeline.device)
        except (RuntimeError, LookupError, TypeError) as error:  # of compel, on tokens that it cannot find again
            raise UserError(
                f"compel cannot encode the prompt {one_line(prompt, 60)!r} ({first_line(error)})"
            ) from error
        return parts

    def _embeds(self, provider: Any, fragments: Fragments, prompt: str) -> Tensor:
        """(1, N L, D) of one text encoder."""
        kept = [each for each in fragments if provider.get_token_ids([each[0]], include_start_and_end_markers=False)[0]]
        texts, weights = [text for text, _ in kept] or [""], [weight for _, weight in kept] or [1.0]
        embeds = provider.get_embeddings_for_weighted_prompt_fragments([texts], [weights], device=self.pipeline.device)
        length, have = provider.max_token_count, embeds.shape[1] // provider.max_token_count
        if have > self.chunks:
            _warn_cut(prompt, have, self.chunks, length - 2)
        filling = [provider.empty_z.to(embeds)] * (self.chunks - have)
        return torch.cat([embeds, *filling], dim=1)[:, : self.chunks * length]


@cache
def _warn_cut(prompt: str, have: int, chunks: int, tokens: int) -> None:
    print(
        f"warning: the prompt {one_line(prompt, 60)!r} is cut after {chunks * tokens} tokens: pipeline.prompt_chunks="
        f"{have} reads all of it",
        file=sys.stderr,
    )
