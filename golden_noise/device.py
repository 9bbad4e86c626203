"""Where tensors are, and in which dtype."""

import torch

from golden_noise.errors import UserError, first_line


def pick_device(device: str) -> torch.device:
    """ "auto" is the first CUDA GPU, else Apple's, else the CPU; anything else is taken as given.

    Raises:
        UserError: there is no such device here.
    """
    try:
        return torch.empty(0, device=device_kind(device) if device == "auto" else device).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"device={device} cannot be used ({first_line(error)}): try device=auto or device=cpu"
        ) from error


def device_kind(device: str) -> str:
    """What kind of device a setting means here, such as cuda; nothing is started on it."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return device.partition(":")[0]


def pick_dtype(dtype: str, device: torch.device, half: str) -> torch.dtype:
    """ "auto" is `half` on a GPU and float32 elsewhere.

    Raises:
        UserError: it is none that a pipeline can run in.
    """
    return getattr(torch, dtype_name(dtype, device.type, half))


def dtype_name(dtype: str, kind: str, half: str) -> str:
    """The name of what `pick_dtype` gives on a kind of device."""
    if dtype == "auto":
        dtype = half if kind == "cuda" else "float32"
    if dtype not in ("float16", "bfloat16", "float32"):
        raise UserError(f"pipeline.model.dtype={dtype} must be auto, float16, bfloat16 or float32")
    return dtype
