"""Networks that are adapters for a pipeline's own denoiser (`model=denoiser_lora`), without that denoiser."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from golden_noise.errors import UserError
from golden_noise.npnet.core.build import not_numbers
from golden_noise.npnet.core.saved import Saved

PREFIX = "trained."
MATRIX = re.compile(r"(.+)\.lora_([AB])\.npnet\.weight")


@dataclass(frozen=True)
class Adapters:
    """Golden noise = noise + denoiser'(noise, T, c): T is the noisiest timestep, c the prompt.

    denoiser' is a pipeline's denoiser with every layer's weight W replaced by W + B A (a factor of 1, no alpha). Its
    output layer (`conv_out`, or a transformer's `proj_out`) counts as zero before, bias included. So it is B A alone.

    Attributes:
        config: `rank`, None for a full copy of the denoiser, and `target_modules`.
        weights: float32, by the names of diffusers' denoiser: `LAYER.lora_A.weight` and `LAYER.lora_B.weight`. A of
            a linear layer is (rank, in), B (out, rank). Those of a convolution have two axes more, (rank, in, h, w)
            and (out, rank, 1, 1). For a full copy: all of the denoiser's own weights.
        trained_for: `pipeline`, `steps` and `guidance`, as far as they are known.
    """

    config: dict[str, Any]
    weights: dict[str, Tensor]
    trained_for: dict[str, Any]


def adapters(saved: Saved) -> Adapters:
    """The adapters that were saved. Whether they fit a denoiser shows when they meet it.

    Raises:
        UserError: they are no adapters, incomplete or damaged.
    """
    rank, names = saved.config.get("rank"), saved.config.get("target_modules")
    whole = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if saved.options.keys() != {"rank", "target_modules"} or not whole or not (rank is None or _is_count(rank)):
        raise UserError(f"{saved.source} holds no adapters: its config has no rank and target_modules, or odd ones")
    if reason := not_numbers(saved.weights, dict.fromkeys(saved.weights, torch.empty(0))):
        raise UserError(f"{saved.source} is damaged: {reason}")
    floats = {name: value.float() for name, value in saved.weights.items()}
    own = {name.removeprefix(PREFIX).replace("/", "."): value for name, value in floats.items()}
    if len(own) < len(floats) or not own or not all(name.startswith(PREFIX) for name in floats):
        raise UserError(f"{saved.source} holds no adapters: their names are others")
    weights = own if rank is None else _pairs(own, rank, saved.source)
    return Adapters({"rank": rank, "target_modules": names}, weights, saved.trained_for)


def _is_count(rank: object) -> bool:
    return isinstance(rank, int) and not isinstance(rank, bool) and rank >= 1


def _pairs(own: Mapping[str, Tensor], rank: int, source: str) -> dict[str, Tensor]:
    """Both matrices of every layer, under diffusers' names."""
    weights = {}
    for name, value in own.items():
        found = MATRIX.fullmatch(name)
        axis = 0 if found and found[2] == "A" else 1
        if not found or value.ndim not in (2, 4) or value.shape[axis] != rank:
            raise UserError(f"{source} holds no adapters of rank {rank}: {name} is odd, of shape {tuple(value.shape)}")
        weights[f"{found[1]}.lora_{found[2]}.weight"] = value
    for name in weights:
        other = name.replace(".lora_A.", ".lora_B.") if ".lora_A." in name else name.replace(".lora_B.", ".lora_A.")
        if other not in weights:
            raise UserError(f"{source} holds incomplete adapters: {other} is missing")
    return weights
