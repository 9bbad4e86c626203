# Vendored from golden_noise/npnet/core/build.py by python -m golden_noise.npnet.vendor; do not edit.
"""Networks of saved weights: whole, or not at all."""

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .errors import UserError, one_line
from .low_frequency import LowFrequencyNetwork
from .network import Network
from .saved import Saved

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)  # not those that need a factor beside them
Built = TypeVar("Built", bound=Network | LowFrequencyNetwork)


class OlderTimm(TorchFunctionMode):
    """Lets timm before 1.0.21 build models of meta tensors: it reads the numbers of a `linspace` on the way."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls the function, this one on the CPU."""
        device = {"device": "cpu"} if function is torch.linspace else {}
        return function(*args, **{**(kwargs or {}), **device})


def build(network: type[Built], saved: Saved) -> Built:
    """A network of a class, with saved options and weights, in float32 and evaluation mode.

    Raises:
        UserError: the weights are not those of such a network, or damaged.
    """
    if reason := out_of_bounds(saved.options, len(saved.weights)):
        raise UserError(f"{saved.source} holds no {saved.class_name}: {reason}")
    try:
        with torch.device("meta"), OlderTimm():  # sizes that do not fit could ask for any amount of memory
            expected = network(**saved.options).state_dict()
    except UserError as error:
        raise UserError(f"{saved.source}: {error}") from error
    except Exception as error:  # a stranger's config fails in every way
        raise UserError(f"{saved.source} holds no {saved.class_name} ({one_line(error)})") from error
    if reason := misfit(saved.weights, expected):
        raise UserError(f"{saved.source} is no {saved.class_name}, or an incomplete one: {reason}")
    if reason := not_numbers(saved.weights, expected):
        raise UserError(f"{saved.source} is damaged: {reason}")
    built = network(**saved.options)
    built.eval()
    # Copies them: as they lie in a file they are not aligned in memory, on which the last bits of results depend.
    built.load_state_dict(saved.weights)
    built.trained_for = saved.trained_for
    return built


def out_of_bounds(options: Mapping[str, Any], weights: int) -> str | None:
    """Which option asks for more layers than there are weights, which building would take for ever to find out."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            if reason := out_of_bounds(value, weights):
                return f"{name}: {reason}"
        elif name in ("depth", "depths"):
            layers = value if isinstance(value, list | tuple) else [value]
            if any(isinstance(each, int) and each > weights for each in layers):
                return f"{name}={value} with {weights} weights"
    return None


def misfit(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str | None:
    """Which weight is missing, unknown or of another shape; None if none is."""
    for name in [*expected, *weights]:
        have, want = (tuple(part[name].shape) if name in part else None for part in (weights, expected))
        if have != want:
            return f"{name} has shape {have} and should have {want}"
    return None


def not_numbers(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str | None:
    """Which of fitting weights has integers for floating point numbers or the reverse, or is not finite."""
    for name, want in expected.items():
        have = weights[name]
        if (have.dtype in FLOATS) != want.is_floating_point():
            return f"{name} holds {have.dtype} and should hold {want.dtype}"
        if have.is_floating_point() and not have.isfinite().all():
            return f"{name} does not hold finite floating point numbers"
    return None
