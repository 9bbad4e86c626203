# Vendored from golden_noise/npnet/core/load.py by python -m golden_noise.npnet.vendor; do not edit.
"""Networks from files and folders, in torch alone."""

from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

from .adapters import Adapters, adapters
from .build import build
from .low_frequency import LowFrequencyNetwork
from .network import Network
from .saved import Saved, read

NETWORKS: dict[str, Any] = {"NPNet": Network, "LowFrequencyNPNet": LowFrequencyNetwork}


def load(
    path: str | Path, fit: str | None = None, long_prompt: str | None = None, **options: Any
) -> Network | LowFrequencyNetwork | Adapters:
    """Loads a network from this machine, in evaluation mode, in float32, on the CPU.

    Args:
        path: a `.safetensors` file that `golden-noise convert` wrote, the folder of a trained network, or
            published weights (`.pth`, `.pt`, `.safetensors`). Nothing in them is executed.
        fit: what to do with noise of other sizes, see `Network`; None: as saved. For networks that take any size it
            means nothing.
        long_prompt: what to do with longer prompts; likewise.
        options: what published weights do not hold, see `published.understand`.

    Returns:
        A module with `latent_shape` (C, H, W), `embeds_shape` (L, D) and `trained_for`, called as
        `network(noise_BCHW, embeds_BLD)`; or adapters, which need the denoiser that they were trained with.

    Raises:
        UserError: there is no such network, or it is damaged; one line, which names the file.
    """
    return assemble(read(Path(path), **options), fit=fit, long_prompt=long_prompt)


def assemble(saved: Saved, **uses: str | None) -> Network | LowFrequencyNetwork | Adapters:
    """The network that was saved. Of the options in `uses` those count that it has and that are not None."""
    if saved.class_name == "DenoiserNPNet":
        return adapters(saved)
    network = NETWORKS[saved.class_name]
    known = signature(network).parameters
    chosen = {name: value for name, value in uses.items() if value is not None and name in known}
    return build(network, replace(saved, config=saved.config | chosen))
