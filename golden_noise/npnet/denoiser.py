"""The pipeline's own denoiser as the network that predicts golden noise (as in NoiseRefine, arXiv 2412.03895).

Shapes: B batch, C x H x W noise.
"""

import copy
from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, Self

from torch import Tensor, nn

from golden_noise.errors import UserError
from golden_noise.npnet.strict import StrictModel
from golden_noise.pipelines.base import Pipeline, PromptEmbedding
from golden_noise.pipelines.loading import first_line

OUTPUTS = ("conv_out", "proj_out")  # the last layer of every UNet, of every transformer of diffusers
STORED = {"embeds", "pooled"}  # what pairs hold of an encoded prompt


class DenoiserNPNet(StrictModel):
    """Golden noise = noise + denoiser'(noise, T, c): one call more than the sampler's own, at the noisiest timestep T.

    denoiser' is the pipeline's denoiser with low-rank adapters (LoRA) and an output layer that starts at zero, so that
    a new one is exactly the identity. It has modules of its own but the pipeline's weights, which stay frozen: no
    memory is spent on a copy, and nothing that happens here reaches the pipeline's sampling. The adapters are float32
    whatever the pipeline's dtype. They alone are parameters here, and all that is saved.

    Args:
        pipeline: whose denoiser it is; not saved, so `from_pretrained` needs it again.
        rank: of the adapters; 4 is enough for any output layer of 4 channels. None trains a full copy of the
            denoiser instead, which suits small ones only.
        target_modules: endings of the names of the layers that get adapters; the output layer always does.
        gradient_checkpointing: train in less memory and more time. Not saved.

    Raises:
        UserError: a rank below 1, names that fit no layer, a denoiser with adapters of its own, or one that takes
            more of a prompt than pairs hold.
    """

    _supports_param_buffer_assignment = False  # loaded values must go into the parameters that the denoiser holds

    def __init__(
        self,
        pipeline: Pipeline,
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
        if rank is not None and rank < 1:
            raise UserError(f"rank={rank} must be a whole number >= 1, or null for a full copy of the denoiser")
        self.pipeline, self.twin = pipeline, _with_own_denoiser(pipeline, share_weights=rank is not None)
        denoiser, output = self.twin.denoiser, _output(pipeline)
        for parameter in denoiser.get_submodule(output).parameters():
            parameter.data.zero_()  # not torch.nn.init, which from_pretrained switches off
        if rank is not None:
            _add_adapters(denoiser, rank, [*target_modules, output])
        if gradient_checkpointing:
            denoiser.enable_gradient_checkpointing()
        trained = {name: parameter for name, parameter in denoiser.named_parameters() if parameter.requires_grad}
        for parameter in trained.values():
            parameter.data = parameter.data.float()
        # The denoiser itself is no submodule: its frozen weights belong into no checkpoint.
        self.trained = nn.ParameterDict({name.replace(".", "/"): value for name, value in trained.items()})

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: str | PathLike | None, pipeline: Pipeline, **kwargs: Any
    ) -> Self:
        """As diffusers' method, from a local folder or a hub id, for the pipeline that it was trained with.

        Raises:
            UserError: what is saved does not fit the pipeline's denoiser.
        """
        return super().from_pretrained(pretrained_model_name_or_path, pipeline=pipeline, **kwargs)

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
        place = (self.device, self.twin.dtype)
        move = self.twin.denoise(noise.to(*place), self.twin.schedule.noisiest, prompt.to(*place))
        return noise + move.to(noise)

    def golden(self, noise: Tensor, prompt: PromptEmbedding) -> Tensor:
        """Golden noise in the dtype and on the device of the noise: the method that every kind of NPNet has."""
        return self(noise, prompt)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy with parameters of its own, for averaged weights; the pipeline and its frozen weights stay shared."""
        denoiser = self.twin.denoiser
        shared = [self.pipeline, *(part for part in self.twin.pipe.components.values() if part is not denoiser)]
        shared += [weight for weight in (*denoiser.parameters(), *denoiser.buffers()) if not weight.requires_grad]
        memo |= {id(item): item for item in shared}
        other = memo[id(self)] = type(self).__new__(type(self))
        other.__dict__ |= copy.deepcopy(self.__dict__, memo)
        return other

    @classmethod
    def _misfit(cls, source: str | PathLike | None, reason: str) -> UserError:
        return UserError(
            f"the adapters in {source} belong to another denoiser ({reason}): "
            "choose the pipeline they were trained with"
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves the parameters, and the rest of the pipeline to the same device."""
        super()._apply(fn, recurse)
        for pipeline in (self.pipeline, self.twin):
            pipeline.pipe.to(self.device)
        return self


def _with_own_denoiser(pipeline: Pipeline, share_weights: bool) -> Pipeline:
    """The same pipeline, all parts shared but the denoiser: that one's modules are copied, with or without weights.

    The output layer always gets weights of its own.
    """
    denoiser = pipeline.denoiser
    shared: list[Any] = [part for part in pipeline.pipe.components.values() if part is not denoiser]
    if share_weights:
        tensors, output = [*denoiser.named_parameters(), *denoiser.named_buffers()], _output(pipeline)
        shared += [tensor for name, tensor in tensors if not name.startswith(f"{output}.")]
    twin = copy.deepcopy(pipeline, {id(item): item for item in shared})
    twin.denoiser.requires_grad_(not share_weights)
    return twin


def _output(pipeline: Pipeline) -> str:
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
