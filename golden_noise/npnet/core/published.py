"""Weights in the forms that the paper's authors and the community publish.

The authors publish `.pth` files, a dict of `unet_embedding` (residual branch), `unet_svd`, `embeeding` (text
injection), `alpha` and `beta`. The community's `.safetensors` files flatten it to `unet_embedding.*`, `unet_svd.*`,
`text_embedding.*`, `alpha` and `beta`, the names used here. Both hold the variant `svd_unet+unet` on a whole Swin-T.

The authors' training code writes the same for that variant, and `unet` and `embeeding` for the others, with `alpha` for
`svd_unet`. What such a file does not hold, the caller of `understand` must give.
"""

import re
from typing import Any

import torch
from torch import Tensor

from golden_noise.errors import UserError

Weights = dict[str, Tensor]

TOKENS = 77  # CLIP's; the files hold the product of tokens and width only
SIDE = 128  # of the noise, where no shape in a file gives it: the authors train on 1024 x 1024 pixels
# What a whole published NPNet is, beside its shapes.
PUBLISHED: dict[str, Any] = {
    "svd": True,
    "attention": True,
    "text": True,
    "signs": "raw",
    "backbone": "swin_tiny_patch4_window7_224",
    "backbone_args": {},
    "backbone_size": 224,
    "layout": "rows",
    "gates": True,
    "target": "golden",
    "unit_variance": False,
}
# Published name -> name here; the first that fits counts.
NAMES = {
    "unet_embedding.downconv.": "residual_branch.conv_in.",
    "unet_embedding.upconv.": "residual_branch.conv_out.",
    "unet_embedding.swin.": "residual_branch.backbone.",
    "unet_svd.mlp3.0.": "svd_branch.mlp3.",
    "unet_svd.attention.proj.": "svd_branch.attention.to_out.0.",
    "unet_svd.": "svd_branch.",
    "text_embedding.": "text_injection.",
    "conv.bn.": "residual_branch.norm.",
    "conv.": "residual_branch.",
    "": "",
}
OURS = ("residual_branch.", "svd_branch.", "text_injection.")
QKV, TO_QKV = "unet_svd.attention.qkv.weight", [f"svd_branch.attention.to_{part}.weight" for part in "qkv"]
ATTENTION = "unet_svd.attention."
# The weights whose shapes give the sizes, and how many axes they have.
MEASURED = {
    "unet_embedding.upconv.weight": 4,
    "conv.conv1.weight": 4,
    "conv.conv1.bias": 1,
    "unet_svd.mlp1.0.weight": 2,
    "unet_svd.mlp2.0.weight": 2,
    QKV: 2,
    "text_embedding.linear.weight": 2,
}
# In the files, but without influence: the classifier, a BatchNorm that is never called, and buffers of old timm.
UNUSED = re.compile(r"unet_embedding\.swin\.head\.|unet_svd\.bn\.|.*\.(relative_position_index|attn_mask)$")
WRAPPERS = ("module", "_orig_mod")  # what DistributedDataParallel and torch.compile put into names


def understand(content: Any, size: int, source: str, options: dict[str, Any]) -> tuple[dict[str, Any], Weights]:
    """The options of NPNet and the weights under its names, both read from names and shapes.

    Args:
        content: what a file holds.
        size: of the file, in bytes.
        source: of it, for errors.
        options: those of NPNet that have no weights, and those that no file holds. `attention=False`: trained by the
            authors' code for `svd_unet+unet`, which leaves attention out yet stores it. `target`: trained by that code
            for `vit` (`absolute`) or for `e_unet` (`difference`). `latent_shape`: not 1024 x 1024 pixels.

    Raises:
        UserError: the file holds anything else, or an option has to be given.
    """
    parts, weights = _by_part(_flatten(content, size, source))
    config = _architecture(parts, weights, source, options)
    return {"_class_name": "NPNet", **config}, our_weights(weights, config["attention"])


def is_published(weights: Weights) -> bool:
    """Whether weights have the community's names."""
    return "unet_svd.mlp4.2.weight" in weights


def _flatten(content: Any, size: int, source: str) -> Weights:
    """The weights under the community's names, but `unet.*` as the authors' training code calls it."""
    weights: Weights = {}
    for part, value in content.items() if isinstance(content, dict) else ():
        for key, tensor in value.items() if isinstance(value, dict) else [("", value)]:
            name = _plain_name(f"{part}.{key}" if key else f"{part}")
            if name in weights:
                raise UserError(f"{source} is not a published NPNet: it holds {name} twice")
            weights[name] = tensor
    if not all(isinstance(value, Tensor) and _is_plain(value) for value in weights.values()):
        raise UserError(f"{source} is not a published NPNet: it holds more than tensors")
    if sum(tensor.nbytes for tensor in weights.values()) > size:  # repeated by strides
        raise UserError(f"{source} is not a published NPNet: its tensors are larger than the file")
    return weights


def _plain_name(name: str) -> str:
    name = ".".join(part for part in name.split(".") if part not in WRAPPERS)
    return f"text_embedding{name.removeprefix('embeeding')}" if name.startswith("embeeding") else name


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_meta


def _by_part(weights: Weights) -> tuple[set[str], Weights]:
    """The parts that there are, and the weights with the name of their part instead of the training code's `unet`."""
    names = [name.removeprefix("unet.") for name in weights if name.startswith("unet.")]
    if not names:
        return {"unet_embedding", "unet_svd"}, weights
    layers = {"conv1.": "conv", "swin.": "unet_embedding"}
    part = next((part for layer, part in layers.items() if any(n.startswith(layer) for n in names)), "unet_svd")
    return {part}, {re.sub(r"^unet\.", f"{part}.", name): value for name, value in weights.items()}


def _architecture(parts: set[str], weights: Weights, source: str, options: dict[str, Any]) -> dict[str, Any]:
    """Options of NPNet: from the parts and shapes, and those that were given."""
    svd = "unet_svd" in parts
    attention = any(name.startswith(ATTENTION) for name in weights)
    config = PUBLISHED | {"svd": svd, "gates": svd, "attention": attention} | options
    if "attention" in options and not svd:
        raise UserError(f"attention={str(options['attention']).lower()}: {source} has no SVD branch, leave it out")
    config |= _shapes(parts, weights, source, config["attention"])
    if "unet_embedding" not in parts:
        config |= {"backbone": None, "backbone_size": None, "layout": "map"}
    if "conv" in parts:
        width = weights["conv.conv1.weight"].shape[1]
        config |= {"backbone": "conv", "backbone_args": {"width": width}, "target": "absolute"}
    elif not svd and "target" not in options:
        raise UserError(
            f"{source} does not say what its network predicts: add target=absolute if it was trained as 'vit', "
            "target=difference if as 'e_unet'"
        )
    return config | options


def _shapes(parts: set[str], weights: Weights, source: str, attention: bool) -> dict[str, Any]:
    """`latent_shape` and `embeds_shape` of published weights."""
    sizes = {}
    for name, axes in MEASURED.items():
        if name.split(".")[0] in (*parts, "text_embedding") and (attention or name != QKV):
            if name not in weights or weights[name].ndim != axes or weights[name].numel() == 0:
                raise UserError(f"{source} is not a published NPNet: it has no {name}, or an odd one")
            sizes[name] = weights[name].shape
    (first, *_), (rows, numbers) = next(iter(sizes.values())), sizes["text_embedding.linear.weight"]
    channels, m, n = (rows // 2 if parts == {"unet_svd"} else first), 2 * SIDE, 2 * SIDE
    if "unet_svd" in parts:
        m, n = (sizes[f"unet_svd.mlp{i}.0.weight"][1] for i in (1, 2))
        fits = channels >= 2 and not (channels % 2 or m % 2 or n % (channels // 2) or sizes.get(QKV, [0])[0] % 3)
        shape = [channels, m // 2, n // (channels // 2)] if fits else []
    else:
        fits, shape = True, [channels, SIDE, SIDE]
    if numbers % TOKENS or not fits:
        raise UserError(
            f"{source} is not a published NPNet: its shapes fit no noise and no prompts of {TOKENS} tokens "
            f"({channels} channels, matrices of {m}x{n}, {numbers} numbers per prompt)"
        )
    return {"latent_shape": shape, "embeds_shape": [TOKENS, numbers // TOKENS]}


def our_weights(weights: Weights, attention: bool) -> Weights:
    """The community's weights under NPNet's names, without those that have no influence."""
    if any(name.startswith(OURS) for name in weights):  # of both kinds: one could hide the other
        return weights
    unused = () if attention else (ATTENTION,)
    used = {n: value for n, value in weights.items() if not (UNUSED.match(n) or n.startswith(unused))}
    qkv = used.pop(QKV, None)
    ours = {_our_name(name): value for name, value in used.items()}
    if qkv is not None:
        ours |= dict(zip(TO_QKV, torch.atleast_1d(qkv).tensor_split(3), strict=True))
    bias, mean = "residual_branch.conv1.bias", "residual_branch.norm.running_mean"
    if bias in ours and mean in ours and ours[bias].shape == ours[mean].shape:
        ours[mean] = ours[mean] - ours.pop(bias)  # the norm behind it subtracts it again, NPNet has none
    return ours


def _our_name(name: str) -> str:
    prefix = next(prefix for prefix in NAMES if name.startswith(prefix))
    return NAMES[prefix] + name.removeprefix(prefix)
