"""Training that starts from a trained network (`npnet=`) instead of a new one."""

from collections.abc import Mapping
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object
from lightning.pytorch.utilities import rank_zero_info
from omegaconf import DictConfig, OmegaConf

from golden_noise.errors import UserError
from golden_noise.npnet import AnyNPNet, DenoiserNPNet, NPNet, checkpoint
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
TOLD = ("attention", "target")  # of a file that does not tell
NEVER_SAVED = ("gradient_checkpointing",)  # what training on may choose anew


def trained_before(config: DictConfig, pipeline: Pipeline | LazyPipeline) -> AnyNPNet:
    """The network of `config.npnet`, in training mode.

    What it is made of counts; the optimizer is that of the config's model.

    Raises:
        UserError: there is none, it does not fit the pipeline, or it is not what the config's model or a setting of the
            command line says.
    """
    source = config.npnet
    new: Any = OmegaConf.to_container(config.model.npnet, resolve=True)
    want = variant(get_object(new["_target_"]), new)
    denoiser = pipeline if want == "denoiser_lora" else None  # refused without loading the pipeline
    npnet = checkpoint.load(source, "npnet", denoiser, **{name: config.get(name) for name in TOLD})
    have = variant(type(npnet), npnet.config)
    if have != want:
        raise UserError(f"npnet={source} is a network of model={have}, this is model={want}: add model={have}")
    for option, setting in _set_by_hand().items():
        if option not in NEVER_SAVED and npnet.config.get(option) != new.get(option):
            built = f"was built with {option}={npnet.config[option]}" if option in npnet.config else "is built already"
            raise UserError(f"{setting}: npnet={source} {built}; leave this setting out, or npnet for a new network")
    for shape in ("latent_shape", "embeds_shape"):
        if isinstance(npnet, NPNet) and getattr(npnet, shape) != tuple(config.pipeline[shape]):
            raise UserError(
                f"npnet={source} has {shape} {getattr(npnet, shape)}, pipeline={config.pipeline.name} needs "
                f"{tuple(config.pipeline[shape])}: choose the pipeline that it was trained for, or train a new network"
            )
    if isinstance(npnet, DenoiserNPNet):
        check_precision(pipeline.loaded)
        if new.get("gradient_checkpointing"):
            npnet.twin.denoiser.enable_gradient_checkpointing()
    rank_zero_info(f"training on from {source}")
    return npnet.train()


def check_new(config: DictConfig) -> None:
    """Check that nothing is told of a file where there is none.

    Raises:
        UserError: there is.
    """
    for name in TOLD:
        if config.get(name) is not None:
            raise UserError(
                f"{name}={config[name]}: it describes the file of npnet=; for a new network: model.npnet.{name}"
            )


def check_precision(pipeline: Pipeline) -> None:
    """Check that a network that shares the pipeline's denoiser can be trained.

    Raises:
        UserError: its gradients would vanish.
    """
    if pipeline.dtype == torch.float16:
        raise UserError("in float16 the gradients of a denoiser vanish: add pipeline.model.dtype=bfloat16 (or float32)")


def variant(network: Any, options: Mapping[str, Any]) -> str:
    """The `model=` that a network class with some options belongs to; the name of a class of one's own."""
    if network is DenoiserNPNet:
        return "denoiser_lora"
    if network is not NPNet:
        return str(network.__name__)
    backbone = options["backbone"]
    if options["svd"]:
        return "svd_unet+unet" if backbone else "svd_unet"
    if backbone == "conv":
        return "unet"
    return "e_unet" if options["target"] == "difference" else "vit"


def _set_by_hand() -> dict[str, str]:
    """Options of a new network that the command line sets -> how it does."""
    found = {}
    for override in HydraConfig.get().overrides.task if HydraConfig.initialized() else ():
        name = override.partition("=")[0].lstrip("+~").partition("@")[0]
        if name.startswith("model.npnet."):
            found[name.split(".")[2]] = override
        elif option := BUILDING.get(".".join(name.split(".")[:2])):
            found[option] = override
    return found
