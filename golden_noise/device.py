"""Where tensors are, and in which dtype."""

import torch

from golden_noise.errors import UserError, first_line

DTYPES = ("float16", "bfloat16", "float32")


def pick_device(device: str) -> torch.device:
    """The device of a setting; "auto" is the first CUDA GPU, else Apple's, else the CPU.

    Raises:
        UserError: there is no such device here.
    """
    try:
        return torch.empty(0, device=device_type(device) if device == "auto" else device).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"device={device} cannot be used ({first_line(error)}): try device=auto or device=cpu"
        ) from error


def device_type(device: str) -> str:
    """The type of device that a setting means here, such as cuda; nothing is started on it."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return device.partition(":")[0]


def dtype_name(dtype: str, device_type: str, half: str) -> str:
    """The dtype of a setting; "auto" is `half` on a CUDA GPU and float32 elsewhere.

    Raises:
        UserError: no pipeline runs in it.
    """
    if dtype == "auto":
        return half if device_type == "cuda" else "float32"
    if dtype not in DTYPES:
        raise UserError(f"pipeline.model.dtype={dtype} must be auto, {', '.join(DTYPES[:-1])} or {DTYPES[-1]}")
    return dtype
