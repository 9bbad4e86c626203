"""What training on an SDXL fine-tune costs at every stage, computed from the published sizes; nothing is downloaded.

Arithmetic is counted by torch's FlopCounterMode on tensors without data, weights by their shapes. What a training step
keeps for its backward pass is summed over a real step of a few noises on the CPU.

    python benchmarks/costs.py
"""

import argparse
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.models import build_npnet, build_sdxl
from benchmarks.published import EMBEDS, LATENT
from golden_noise.npnet import NPNet

META = torch.device("meta")
GB = 1e9


def weights(module: nn.Module) -> float:
    """Bytes of a module's parameters, in gigabytes."""
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters()) / GB


def denoiser_tflop(unet: nn.Module) -> float:
    """Arithmetic of one call for one image, in TFLOP (a multiplication and an addition are two)."""
    half: dict[str, Any] = {"device": META, "dtype": torch.float16}
    added = {"text_embeds": torch.empty(1, 1280, **half), "time_ids": torch.empty(1, 6, **half)}
    embeds = torch.empty(1, *EMBEDS, **half)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        step = torch.ones((), **half)
        unet(torch.empty(1, *LATENT, **half), step, encoder_hidden_states=embeds, added_cond_kwargs=added)
    return counter.get_total_flops() / 1e12


def kept_for_backward(npnet: NPNet, noises: int = 2) -> float:
    """Bytes that a forward pass keeps for the backward pass, per noise, in gigabytes; storages count once."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    own = {parameter.untyped_storage().data_ptr() for parameter in npnet.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        golden = npnet(torch.randn(noises, *LATENT), torch.randn(noises, *EMBEDS))
        golden.square().mean().backward()
    return sum(size for pointer, size in storages.items() if pointer not in own) / noises / GB


def training_tflop(npnet: NPNet) -> float:
    """Arithmetic of a training step for one pair, in TFLOP."""
    with FlopCounterMode(display=False) as counter:
        npnet(torch.randn(1, *LATENT), torch.randn(1, *EMBEDS)).square().mean().backward()
    return counter.get_total_flops() / 1e12


def main() -> None:
    """Prints the tables of docs/recipe_24gb.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    pipe = build_sdxl(META)
    print("| part of SDXL | GB in float16 |\n| --- | --- |")
    parts = {"denoiser": [pipe.unet], "text encoders": [pipe.text_encoder, pipe.text_encoder_2], "VAE": [pipe.vae]}
    for name, modules in parts.items():
        print(f"| {name} | {sum(map(weights, modules)):.2f} |")
    print(f"\none denoiser call for one image of 1024 x 1024: {denoiser_tflop(pipe.unet):.2f} TFLOP\n")
    npnet = build_npnet()
    optimized, kept = 4 * weights(npnet), kept_for_backward(npnet)  # weights, gradients, two moments of AdamW
    print(f"one training step of NPNet for one pair: {training_tflop(npnet):.3f} TFLOP\n")
    print("| training NPNet, float32 | GB |\n| --- | --- |")
    size = sum(parameter.numel() for parameter in npnet.parameters()) / 1e6
    print(f"| weights ({size:.1f} million), gradients, AdamW | {optimized:.2f} |")
    for batch in (64, 32, 16):
        print(f"| kept for the backward pass, batch of {batch} | {kept * batch:.1f} |")


if __name__ == "__main__":
    main()
