"""Prompts that somebody else encoded, as the call of a diffusers pipeline takes them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from golden_noise.errors import UserError
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.prompt_embedding import ARGUMENTS, PromptEmbedding

NEGATIVE = "negative_"


def given_embedding(pipeline: Pipeline, given: Mapping[str, Any], count: int, whole: bool) -> PromptEmbedding:
    """Encoded prompts from the arguments of a diffusers call.

    Args:
        given: tensors by the names of the call, such as `prompt_embeds` (B, L, D), `pooled_prompt_embeds` (B, P) and
            `negative_prompt_embeds`, where B is 1 or `count`.
        count: how many prompts there shall be; a single one is repeated.
        whole: whether all parts that the denoiser takes have to be there.

    Raises:
        UserError: an argument that the family does not have, one that is missing, or a tensor of another shape.
    """
    own = {ARGUMENTS[name]: name for name in pipeline.conditions}
    names = ", ".join(own)
    for argument, tensor in given.items():
        if argument.removeprefix(NEGATIVE) not in own:
            raise UserError(f"golden_latents: a {type(pipeline.pipe).__name__} takes {names} and no {argument}")
        _check(argument, tensor, own[argument.removeprefix(NEGATIVE)], _width(pipeline), count)
    needed = own if whole else [ARGUMENTS["embeds"]]
    if missing := [argument for argument in needed if argument not in given]:
        raise UserError(f"golden_latents: {missing[0]} is missing: the pipeline's text encoders give {names}")
    parts = {name: given[argument] for argument, name in own.items() if argument in given}
    other = {name: given[NEGATIVE + argument] for argument, name in own.items() if NEGATIVE + argument in given}
    embedding = PromptEmbedding(**parts, negative=PromptEmbedding(**other) if "embeds" in other else None)
    return embedding if len(embedding) == count else embedding[[0] * count]


def _check(argument: str, tensor: Any, name: str, width: int | None, count: int) -> None:
    """Check one tensor: `name` is its part of a PromptEmbedding, and `width` the numbers per token of the first."""
    dimensions = 3 if name.startswith("embeds") else 2
    if not isinstance(tensor, Tensor) or tensor.ndim != dimensions or len(tensor) not in (1, count):
        shape = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
        wanted = f"({count} or 1 prompts, tokens, numbers)" if dimensions == 3 else f"({count} or 1 prompts, numbers)"
        raise UserError(f"golden_latents: {argument} must be a tensor {wanted} for {count} seeds, not {shape}")
    if name == "embeds" and width is not None and tensor.shape[2] != width:
        raise UserError(
            f"golden_latents: {argument} has {tensor.shape[2]} numbers per token, this denoiser reads {width}"
        )
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        raise UserError(f"golden_latents: {argument} holds numbers that are not finite")


def _width(pipeline: Pipeline) -> int | None:
    """Numbers per token that a denoiser reads, if it says so."""
    config = pipeline.denoiser.config
    width = config.get("joint_attention_dim") or config.get("cross_attention_dim")
    return width if isinstance(width, int) else None
