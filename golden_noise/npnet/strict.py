"""A diffusers model that is loaded whole or not at all: the base of every NPNet."""

from collections.abc import Callable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, Self

import torch
from diffusers import ConfigMixin, ModelMixin
from torch import Tensor

from golden_noise.errors import UserError, one_line
from golden_noise.hub import quiet


class _NotFloats(ValueError):
    """A tensor of integers instead of floating point numbers, or the reverse."""


class StrictModel(ModelMixin, ConfigMixin):
    """diffusers' model, but weights that are missing, unknown, of another shape or not finite are an error.

    diffusers itself fills what is missing with random numbers, and casts integers.
    """

    if TYPE_CHECKING:  # what diffusers gives it
        config: Mapping[str, Any]
        device: torch.device
        dtype: torch.dtype
        save_pretrained: Callable[..., None]

    config_name = "config.json"
    # Loaded values are copied into the parameters. Those as they lie in a file are not aligned in memory, on which the
    # last bits of results depend; and adapters' parameters are also those of the denoiser that holds them.
    _supports_param_buffer_assignment = False

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | PathLike | None, **kwargs: Any) -> Self:
        """As diffusers' method, from a local folder or a hub id, in evaluation mode; never from a pickle.

        diffusers' way to save memory is off by default: it leaves unset those buffers of timm's models that no
        file holds.

        Raises:
            UserError: another model is there, or its weights are damaged.
        """
        source = pretrained_model_name_or_path
        options = {"low_cpu_mem_usage": False, "use_safetensors": True, **kwargs, "output_loading_info": True}
        try:
            with quiet("diffusers"):  # it warns of keys before they are refused here
                model, report = super().from_pretrained(source, **options)
        except UserError:
            raise
        except _NotFloats as error:
            raise UserError(f"{source} is damaged: {error}") from error
        except (RuntimeError, TypeError, ValueError) as error:  # another class's config, or a layer of another shape
            raise cls._misfit(source, one_line(error)) from error
        for what in ("missing_keys", "unexpected_keys"):
            if report[what]:
                raise cls._misfit(source, f"{what.replace('_', ' ')}: {report[what][0]}")
        for name, parameter in model.named_parameters():
            if not parameter.isfinite().all():
                raise UserError(f"{source} is damaged: {name} is not finite")
        return model

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *others: Any) -> None:
        """PyTorch's hook, which would cast."""
        for name, own in self.state_dict().items():
            given = state_dict.get(prefix + name, own)
            if given.is_floating_point() != own.is_floating_point():
                raise _NotFloats(f"{name} holds {given.dtype} and should hold {own.dtype}")
        super()._load_from_state_dict(state_dict, prefix, *others)

    @classmethod
    def _misfit(cls, source: str | PathLike | None, reason: str) -> UserError:
        return UserError(f"{source} holds no {cls.__name__}, or a damaged one ({reason})")
