"""What decides images, and the versions of the libraries that draw them."""

import hashlib
import platform
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

import golden_noise
from golden_noise import identity
from golden_noise.device import device_type
from golden_noise.generation.names import BEST_OF_N, GOLDEN, GUIDED, NETWORK_CONTROLS, NPNET, SEARCH
from golden_noise.npnet import AnyNPNet
from golden_noise.pipelines.loading import model_dtype

LIBRARIES = ("torch", "diffusers", "transformers", "lightning", "timm")


def drawing_settings(
    config: DictConfig,
    names: list[str],
    networks: Mapping[str, AnyNPNet],
    more: Mapping[str, dict[str, Any]] | None = None,
) -> dict[str, dict[str, Any]]:
    """What decides the images of each method, beside the prompts and their seeds.

    Args:
        names: of the methods.
        networks: the network of each method that has one of its own.
        more: what else decides a method's images.
    """
    plain: Any = OmegaConf.to_container(config, resolve=True)
    device = device_type(config.device)
    model = identity.model(plain["pipeline"]["model"], model_dtype(plain["pipeline"]["model"], config.device))
    known = {id(network): weights_digest(network) for network in networks.values()}
    digests = {name: known[id(network)] for name, network in networks.items()}
    searches = {SEARCH: plain.get("search"), **plain.get("evaluation", {}).get("searches", {})}
    settings = {}
    given = plain.get("noise_file")
    noise_file = identity.file_digest(Path(given).expanduser()) if given else None
    for name in names:
        parts: dict[str, Any] = {"noise_file": noise_file, **(more or {}).get(name, {})}
        if name in digests or name in NETWORK_CONTROLS:
            network = name if name in digests else NPNET
            options = dict(getattr(networks[network], "config", {}))  # may differ with the same weights, such as `fit`
            own = {option: value for option, value in options.items() if not option.startswith("_")}
            parts |= {"npnet": digests[network], "npnet_settings": own, "device": identity.sign_device(own, device)}
        if name == GOLDEN and plain.get("strength", 1) != 1:  # 1, recorded by no earlier version, is what they drew
            parts["strength"] = plain["strength"]
        if name in searches:
            parts["search"] = identity.without_device(searches[name])
        if name == BEST_OF_N:
            best_of = plain["evaluation"]["best_of"]
            metric = best_of["metric"] or next(iter(plain["metric"]))
            chosen = {metric: identity.without_device(plain["metric"][metric])}
            parts["best_of"] = {"count": best_of["count"], "metric": chosen}
        sampler = {k: v for k, v in plain["evaluation"]["guided"].items() if v is not None} if name == GUIDED else {}
        settings[name] = identity.images(model | sampler, **parts)
    return settings


def weights_digest(network: nn.Module) -> str:
    """Hash of a network's weights, which differs after retraining into the same folder."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """The versions of golden-noise, Python and those of the LIBRARIES that are installed."""
    libraries = {}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            libraries[name] = version(name)
    return {"golden-noise": golden_noise.__version__, "python": platform.python_version(), **libraries}
