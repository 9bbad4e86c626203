"""Training that starts from a trained network (`npnet=`) instead of a new one."""

from collections.abc import Mapping
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object
from lightning.pytorch.utilities import rank_zero_info
from omegaconf import DictConfig, OmegaConf

from golden_noise.errors import UserError
from golden_noise.npnet import AnyNPNet, DenoiserNPNet, LowFrequencyNPNet, NPNet, checkpoint
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.lazy import LazyPipeline

# Settings that decide how a new network is built, and the option of it that they set.
BUILDING = {
    "recipe.backbone": "backbone",
    "recipe.backbone_args": "backbone_args",
    "recipe.backbone_size": "backbone_size",
    "pipeline.conv_in": "backbone_args",
    "recipe.lora_rank": "rank",
}
UNRECORDED = ("attention", "target")  # options that a published file does not record
CHANGEABLE = ("gradient_checkpointing",)  # options that may change from one training to the next


def trained_before(config: DictConfig, pipeline: Pipeline | LazyPipeline) -> AnyNPNet:
    """The network of `config.npnet`, in training mode.

    Raises:
        UserError: there is none, it does not fit the pipeline, or the config's model or a setting of the command line
            describes another one.
    """
    source = config.npnet
    new: Any = OmegaConf.to_container(config.model.npnet, resolve=True)
    want = variant(get_object(new["_target_"]), new)
    denoiser = pipeline if want == "denoiser_lora" else None  # refused without loading the pipeline
    npnet = checkpoint.load(source, "npnet", denoiser, **{name: config.get(name) for name in UNRECORDED})
    have = variant(type(npnet), npnet.config)
    if have != want:
        raise UserError(f"npnet={source} is a network of model={have}, not model={want}: add model={have}")
    for option, setting in _set_by_hand().items():
        if option not in CHANGEABLE and npnet.config.get(option) != new.get(option):
            built = f"was built with {option}={npnet.config[option]}" if option in npnet.config else "is built already"
            raise UserError(f"{setting}: npnet={source} {built}; leave this setting out, or npnet for a new network")
    if isinstance(npnet, NPNet | LowFrequencyNPNet):
        _check_shapes(npnet, source, config.pipeline)
    if isinstance(npnet, DenoiserNPNet):
        check_precision(pipeline.loaded)
        if new.get("gradient_checkpointing"):
            npnet.twin.denoiser.enable_gradient_checkpointing()
    rank_zero_info(f"training starts from {source}")
    return npnet.train()


def _check_shapes(npnet: NPNet | LowFrequencyNPNet, source: str, pipeline: DictConfig) -> None:
    for shape in ("latent_shape", "embeds_shape"):
        have, want = getattr(npnet, shape), tuple(pipeline[shape])
        of_any_size = shape == "latent_shape" and isinstance(npnet, LowFrequencyNPNet) and npnet.takes(want)
        if have != want and not of_any_size:
            raise UserError(
                f"npnet={source} has {shape} {have}, pipeline={pipeline.name} needs {want}: choose the pipeline that "
                "it was trained for, or train a new network"
            )


def check_new(config: DictConfig) -> None:
    """Refuse options that describe a file where there is none."""
    for name in UNRECORDED:
        if config.get(name) is not None:
            raise UserError(
                f"{name}={config[name]}: it describes the file of npnet=; for a new network: model.npnet.{name}"
            )


def check_precision(pipeline: Pipeline) -> None:
    """Refuse to train a network that shares the pipeline's denoiser in float16."""
    if pipeline.dtype == torch.float16:
        raise UserError("in float16 the gradients of a denoiser vanish: add pipeline.model.dtype=bfloat16 (or float32)")


def variant(network: Any, options: Mapping[str, Any]) -> str:
    """The `model=` of a network class with these options; for another class, its name."""
    if network is DenoiserNPNet:
        return "denoiser_lora"
    if network is LowFrequencyNPNet:
        return "low_frequency"
    if network is not NPNet:
        return str(network.__name__)
    backbone = options["backbone"]
    if options["svd"]:
        return "svd_unet+unet" if backbone else "svd_unet"
    if backbone == "conv":
        return "unet"
    return "e_unet" if options["target"] == "difference" else "vit"


def _set_by_hand() -> dict[str, str]:
    """Options of a new network that the command line sets -> the override."""
    options = {}
    for override in HydraConfig.get().overrides.task if HydraConfig.initialized() else ():
        name = override.partition("=")[0].lstrip("+~").partition("@")[0]
        if name.startswith("model.npnet."):
            options[name.split(".")[2]] = override
        elif option := BUILDING.get(".".join(name.split(".")[:2])):
            options[option] = override
    return options
