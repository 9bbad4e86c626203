"""The pipeline's own denoiser as the network that predicts golden noise.

It is the network of NoiseRefine (arXiv 2412.03895), which trains it on the images that its noise leads to; training on
pairs is ours.

Shapes: B batch, C x H x W noise.
"""

import copy
from collections.abc import Callable, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor, nn

from golden_noise.errors import UserError, first_line
from golden_noise.npnet.core.adapters import adapters
from golden_noise.npnet.core.build import misfit
from golden_noise.npnet.core.saved import Saved
from golden_noise.npnet.strict import StrictModel
from golden_noise.pipelines.prompt_embedding import PromptEmbedding

if TYPE_CHECKING:  # its imports take seconds, and who has a pipeline has waited for them
    from golden_noise.pipelines.base import Pipeline

OUTPUTS = ("conv_out", "proj_out")  # the last layer of every UNet, of every transformer of diffusers
STORED = {"embeds", "pooled"}  # what pairs hold of an encoded prompt


class DenoiserNPNet(StrictModel):
    """Golden noise = noise + denoiser'(noise, T, c): one call more than the sampler's own, at the noisiest timestep T.

    denoiser' is the pipeline's denoiser with low-rank adapters (LoRA) and an output layer that starts at zero, so that
    a new one is exactly the identity. It has modules and frozen parameters of its own, whose storage is the pipeline's:
    no memory is spent on a copy, and nothing that happens here reaches the pipeline or its sampling. The adapters are
    float32 whatever the pipeline's dtype. They alone are parameters here, and all that is saved.

    Args:
        pipeline: whose denoiser it is; not saved, so `from_pretrained` needs it again.
        rank: of the adapters; 4 is enough for any output layer of 4 channels. None trains a full copy of the
            denoiser instead, which suits small ones only.
        target_modules: endings of the names of the layers that get adapters; the output layer always does.
        gradient_checkpointing: train in less memory and more time. Not saved.

    Raises:
        UserError: a rank below 1, names that fit no layer, a denoiser with adapters of its own, one that is offloaded
            layer by layer, or one that takes more of a prompt than pairs hold.
    """

    def __init__(
        self,
        pipeline: "Pipeline",
        rank: int | None,
        target_modules: Sequence[str] = (),
        gradient_checkpointing: bool = False,
    ):
        super().__init__()
        self.register_to_config(rank=rank, target_modules=list(target_modules))
        if unknown := set(pipeline.conditions) - STORED:
            raise UserError(
                f"model=denoiser_lora cannot be trained for a {type(pipeline.pipe).__name__}: pairs do not hold its "
                f"{', '.join(sorted(unknown))}; choose another model"
            )
        if any(parameter.is_meta for parameter in pipeline.denoiser.parameters()):
            raise UserError(
                "a denoiser that is offloaded layer by layer has no weights to share: choose "
                "pipeline.model.memory.offload=model (or none), or another model than denoiser_lora"
            )
        if rank is not None and rank < 1:
            raise UserError(f"rank={rank} must be an integer >= 1, or null for a full copy of the denoiser")
        self.pipeline, self.twin = pipeline, _with_own_denoiser(pipeline, share_weights=rank is not None)
        denoiser, output = self.twin.denoiser, _output(pipeline)
        self.tied = [] if rank is None else _tied_modules(denoiser, pipeline.denoiser, output)
        for parameter in denoiser.get_submodule(output).parameters():
            parameter.data.zero_()  # not torch.nn.init, which from_pretrained switches off
        if rank is not None:
            _add_adapters(denoiser, rank, [*target_modules, output])
        if gradient_checkpointing:
            denoiser.enable_gradient_checkpointing()
        trained = {name: parameter for name, parameter in denoiser.named_parameters() if parameter.requires_grad}
        for parameter in trained.values():
            parameter.data = parameter.data.float()
        # The denoiser itself is not a submodule: its frozen weights belong in no checkpoint.
        self.trained = nn.ParameterDict({name.replace(".", "/"): value for name, value in trained.items()})

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: str | PathLike | None, pipeline: "Pipeline", **kwargs: Any
    ) -> Self:
        """As diffusers' method, from a local folder or a hub id, for the pipeline that it was trained with.

        Raises:
            UserError: what is saved does not fit the pipeline's denoiser.
        """
        return super().from_pretrained(pretrained_model_name_or_path, pipeline=pipeline, **kwargs)

    @classmethod
    def from_saved(cls, saved: Saved, pipeline: "Pipeline") -> Self:
        """As `from_pretrained`, of what is in one file."""
        adapters(saved)  # refuses what belongs to no denoiser at all
        npnet = cls(pipeline, **saved.options).eval()
        if reason := misfit(saved.weights, npnet.state_dict()):
            raise cls._misfit(saved.source, reason)
        npnet.load_state_dict(saved.weights)
        return npnet

    @property
    def denoiser(self) -> Any:
        """The pipeline's denoiser with the adapters, or the trained copy of it."""
        return self.twin.denoiser

    def forward(self, noise: Tensor, prompt: PromptEmbedding) -> Tensor:
        """Predicts the golden noise.

        Args:
            noise: (B, C, H, W), standard normal, any floating dtype and device.
            prompt: of B prompts; `pooled` too if the denoiser takes it.

        Returns:
            (B, C, H, W) in the dtype and on the device of the noise.

        Raises:
            UserError: noise of another number of channels, or another number of prompts.
        """
        batch, channels = len(prompt), self.twin.latent_shape[0]
        if noise.ndim != 4 or tuple(noise.shape[:2]) != (batch, channels):
            raise UserError(
                f"noise: {batch} prompts need shape ({batch}, {channels}, height, width), got {tuple(noise.shape)}"
            )
        device, dtype = self.device, self.twin.dtype
        move = self.twin.denoise(noise.to(device, dtype), self.twin.schedule.noisiest, prompt.to(device, dtype))
        if self._is_offloaded:
            _tie(self.tied)  # its hook moved the weights to the GPU: the pipeline's own will come there next
        return (noise + move.to(noise.device)).to(noise.dtype)

    def golden(self, noise: Tensor, prompt: PromptEmbedding) -> Tensor:
        """As `forward`: the method that every NPNet has."""
        return self(noise, prompt)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy with parameters of its own, for averaged weights; the pipeline and its frozen weights stay shared."""
        denoiser = self.twin.denoiser
        shared = [self.pipeline, *(part for part in self.twin.pipe.components.values() if part is not denoiser)]
        shared += [weight for weight in (*denoiser.parameters(), *denoiser.buffers()) if not weight.requires_grad]
        shared += [theirs for _, theirs in self.tied]
        memo |= {id(item): item for item in shared}
        other = memo[id(self)] = type(self).__new__(type(self))
        other.__dict__ |= copy.deepcopy(self.__dict__, memo)
        return other

    @classmethod
    def _misfit(cls, source: str | PathLike | None, reason: str) -> UserError:
        return UserError(
            f"the adapters in {source} belong to another denoiser, or are incomplete ({reason}): "
            "choose the pipeline they were trained with, or another copy"
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves the parameters, and the rest of the pipeline to the same device unless hooks of its own move it."""
        super()._apply(fn, recurse)
        if not self._is_offloaded:
            self.pipeline.pipe.to(self.device)
            _tie(self.tied)  # first, so that the device never holds two copies
            self.twin.pipe.to(self.device)
            if self.tied:  # the output layer's zeros follow to the dtype that the weights now have
                self.twin.denoiser.get_submodule(_output(self.pipeline)).base_layer.to(self.pipeline.dtype)
        return self

    @property
    def _is_offloaded(self) -> bool:
        """Whether hooks move the pipeline's parts to a device and back."""
        return any(hasattr(part, "_hf_hook") for part in self.pipeline.pipe.components.values())


def _with_own_denoiser(pipeline: "Pipeline", share_weights: bool) -> "Pipeline":
    """The same pipeline, all parts shared but the denoiser: that one's modules are copied, with or without weights.

    Weights that are not copied are frozen parameters over the pipeline's storage. The output layer always gets weights
    of its own.
    """
    denoiser = pipeline.denoiser
    memo: dict[int, Any] = {id(part): part for part in pipeline.pipe.components.values() if part is not denoiser}
    if share_weights:
        own = f"{_output(pipeline)}."
        memo |= {id(p): _frozen(p) for name, p in denoiser.named_parameters() if not name.startswith(own)}
        memo |= {id(buffer): buffer for name, buffer in denoiser.named_buffers() if not name.startswith(own)}
    twin = copy.deepcopy(pipeline, memo)
    twin.denoiser.requires_grad_(not share_weights)
    return twin


def _frozen(parameter: nn.Parameter) -> nn.Parameter:
    """A parameter without gradient over the same storage. Quantised weights, of classes of their own, have none."""
    plain = type(parameter) is nn.Parameter
    return nn.Parameter(parameter.detach(), requires_grad=False) if plain else parameter


def _tied_modules(own: nn.Module, theirs: nn.Module, output: str) -> list[tuple[nn.Module, nn.Module]]:
    """The modules of a copied denoiser beside those whose weights they share: all but the output layer's."""
    pairs = zip(own.named_modules(), theirs.modules(), strict=True)
    return [(mine, other) for (name, mine), other in pairs if name.split(".")[0] != output]


def _tie(modules: Sequence[tuple[nn.Module, nn.Module]]) -> None:
    """Shares the weights again, after those of the second modules have moved to another device."""
    for own, theirs in modules:
        for name, parameter in theirs.named_parameters(recurse=False):
            setattr(own, name, _frozen(parameter))
        for name, buffer in theirs.named_buffers(recurse=False):
            setattr(own, name, buffer)


def _output(pipeline: "Pipeline") -> str:
    """Name of the denoiser's last layer."""
    return next(name for name in OUTPUTS if hasattr(pipeline.denoiser, name))


def _add_adapters(denoiser: nn.Module, rank: int, target_modules: list[str]) -> None:
    """Adds LoRA to the named layers of a frozen denoiser, as peft does it."""
    from peft import LoraConfig, inject_adapter_in_model  # takes seconds, and only this needs it

    if getattr(denoiser, "peft_config", None):
        raise UserError(
            "the pipeline's denoiser has adapters already: fuse them (pipe.fuse_lora) and unload them first"
        )
    try:
        # lora_alpha = rank: a factor of 1. The adapters start with B = 0, so they change nothing.
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=target_modules)
        inject_adapter_in_model(config, denoiser, "npnet")
    except ValueError as error:
        raise UserError(f"target_modules={target_modules} cannot get adapters: {first_line(error)}") from error
