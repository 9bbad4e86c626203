"""The head that the LAION aesthetic predictor and ImageReward put on a feature vector."""

import torch
from torch import Tensor

from golden_noise.errors import UserError

LAYERS = (0, 2, 4, 6, 7)  # what lies between them is dropout, which does nothing here


def fold_head(tensors: dict[str, Tensor], source: str) -> tuple[Tensor, Tensor]:
    """The head's five linear layers as one: weight (D,) and bias () in float32.

    The published heads have no activations, so they are affine maps: W5(W4(...W1 x + b1...) + b4) + b5.

    Args:
        tensors: `layers.I.weight` (out, in) and `layers.I.bias` (out) for the layers above.

    Raises:
        UserError: layers are missing, left over, or do not fit each other.
    """
    expected = {f"layers.{i}.{part}" for i in LAYERS for part in ("weight", "bias")}
    if tensors.keys() != expected:
        raise UserError(f"{source} holds no weights for this metric: {min(tensors.keys() ^ expected)} does not fit")
    first = tensors["layers.0.weight"]
    weight, bias = torch.eye(first.shape[-1], dtype=torch.float64), torch.zeros(first.shape[-1], dtype=torch.float64)
    try:
        for i in LAYERS:
            layer = tensors[f"layers.{i}.weight"].double()
            weight, bias = layer @ weight, layer @ bias + tensors[f"layers.{i}.bias"].double()
        return weight.squeeze(0).float(), bias.squeeze(0).float()
    except RuntimeError as error:
        raise UserError(f"{source} holds no weights for this metric: the layers' sizes do not fit") from error
