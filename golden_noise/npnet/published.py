"""Weights in the forms that the paper's authors and the community publish.

The authors publish `.pth` files, a dict of `unet_embedding` (residual branch), `unet_svd`, `embeeding` (text
injection), `alpha` and `beta`. The community's `.safetensors` files flatten it to `unet_embedding.*`, `unet_svd.*`,
`text_embedding.*`, `alpha` and `beta`, the names used here. Both hold the variant `svd_unet+unet` on a whole Swin-T.

The authors' training code writes the same for that variant, and `unet` and `embeeding` for the others, with `alpha` for
`svd_unet`. What such a file does not hold, the caller of `load` must give.
"""

import re
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from golden_noise.errors import UserError
from golden_noise.files import atomic_file
from golden_noise.hub import fetch_file, read_tensors
from golden_noise.npnet.npnet import NPNet

Weights = dict[str, Tensor]

AUTHORS, COMMUNITY = (".pth", ".pt"), ".safetensors"
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


def is_published(source: str) -> bool:
    """Whether a source is named as published weights are."""
    return Path(source).suffix.lower() in (*AUTHORS, COMMUNITY)


def load(source: str, option: str = "npnet", **options: Any) -> NPNet:
    """Loads published weights, in evaluation mode. The variant and its sizes are read from names and shapes.

    Args:
        source: a file, whatever its name, or ORG/NAME/FILE on the hub.
        option: the setting that gave `source`, for errors.
        options: those of NPNet that have no weights, and those that no file holds. `attention=False`: trained by the
            authors' code for `svd_unet+unet`, which leaves attention out yet stores it. `target`: trained by that code
            for `vit` (`absolute`) or for `e_unet` (`difference`). `latent_shape`: not 1024 x 1024 pixels.

    Raises:
        UserError: no such file, it holds anything else, or an option has to be given.
    """
    file = fetch_file(source, option)
    parts, weights = _by_part(_read(file, source))
    config = _architecture(parts, weights, source, options)
    ours = _our_weights(weights, config["attention"])
    with torch.device("meta"):  # sizes that do not belong together could ask for any amount of memory
        expected = NPNet(**config).state_dict()
    for name in [*expected, *ours]:
        have, want = (tuple(part[name].shape) if name in part else None for part in (ours, expected))
        if have != want:
            raise UserError(f"{source} is not a published NPNet: {name} has shape {have} and should have {want}")
        counts = not expected[name].is_floating_point()  # of BatchNorm
        if not (counts or (ours[name].is_floating_point() and ours[name].isfinite().all())):
            raise UserError(f"{source} is damaged: {name} does not hold finite floating point numbers")
    npnet = NPNet(**config).eval()
    npnet.load_state_dict(ours)
    return npnet


def save(npnet: NPNet, target: Path) -> None:
    """Saves an NPNet: `.pth` as the authors do, `.safetensors` as the community does.

    What the published network holds without using it is filled in, with zeros where nothing is normalised, so
    that its own code loads the file.

    Raises:
        UserError: the published forms cannot hold this NPNet.
    """
    weights = _published_weights(npnet, target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(target) as file:
        if target.suffix.lower() == COMMUNITY:
            file.write(safetensors.torch.save(weights))
        else:
            torch.save(_nested(weights), file)


def _read(file: Path, source: str) -> Weights:
    """The weights under the community's names, but `unet.*` as the authors' training code calls it."""
    content = read_tensors(file, source)
    if isinstance(content, dict) and "pytorch-lightning_version" in content:
        raise UserError(_whose_checkpoint(file, source))
    weights: Weights = {}
    for part, value in content.items() if isinstance(content, dict) else ():
        for key, tensor in value.items() if isinstance(value, dict) else [("", value)]:
            name = _plain_name(f"{part}.{key}" if key else f"{part}")
            if name in weights:
                raise UserError(f"{source} is not a published NPNet: it holds {name} twice")
            weights[name] = tensor
    if not all(isinstance(value, Tensor) and _is_plain(value) for value in weights.values()):
        raise UserError(f"{source} is not a published NPNet: it holds more than tensors")
    if sum(tensor.nbytes for tensor in weights.values()) > file.stat().st_size:  # repeated by strides
        raise UserError(f"{source} is not a published NPNet: its tensors are larger than the file")
    return weights


def _whose_checkpoint(file: Path, source: str) -> str:
    run = file.absolute().parents[1]
    if (run / "npnet/best/config.json").is_file():
        return f"{source} is what a training resumes from: give the folder of its run, {run}"
    return f"{source} is what a training resumes from: let it end, and give the folder of its run"


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


def _our_weights(weights: Weights, attention: bool) -> Weights:
    """The weights under NPNet's names, without those that have no influence."""
    unused = () if attention else (ATTENTION,)
    used = {n: value for n, value in weights.items() if not (UNUSED.match(n) or n.startswith(unused))}
    qkv = used.pop(QKV, None)
    ours = {_our_name(name): value for name, value in used.items()}
    if qkv is not None:
        ours |= dict(zip(TO_QKV, qkv.chunk(3), strict=True))
    bias, mean = "residual_branch.conv1.bias", "residual_branch.norm.running_mean"
    if bias in ours and mean in ours and ours[bias].shape == ours[mean].shape:
        ours[mean] = ours[mean] - ours.pop(bias)  # the norm behind it subtracts it again, NPNet has none
    return ours


def _our_name(name: str) -> str:
    prefix = next(prefix for prefix in NAMES if name.startswith(prefix))
    return NAMES[prefix] + name.removeprefix(prefix)


def _their_name(name: str) -> str:
    theirs, ours = next((theirs, ours) for theirs, ours in NAMES.items() if name.startswith(ours))
    return theirs + name.removeprefix(ours)


def _published_weights(npnet: NPNet, target: Path) -> Weights:
    for option, value in PUBLISHED.items():
        have = npnet.config[option]
        if have != value and not (option == "backbone_args" and not have):
            raise UserError(f"{target}: the published form needs {option}={value}, this NPNet has {option}={have}")
    if npnet.embeds_shape[0] != TOKENS:
        raise UserError(f"{target}: the published form needs {TOKENS} tokens, this NPNet reads {npnet.embeds_shape[0]}")
    ours = {name: value.detach().cpu().contiguous() for name, value in npnet.state_dict().items()}
    qkv = torch.cat([ours.pop(name) for name in TO_QKV])
    theirs = {_their_name(name): value for name, value in ours.items()} | {QKV: qkv}
    features, k = len(ours["residual_branch.backbone.norm.weight"]), qkv.shape[1]
    theirs |= {
        "unet_embedding.swin.head.fc.weight": torch.zeros(1000, features),
        "unet_embedding.swin.head.fc.bias": torch.zeros(1000),
    }
    norm = torch.nn.BatchNorm2d(k).state_dict()
    return theirs | {f"unet_svd.bn.{name}": value for name, value in norm.items()}


def _nested(weights: Weights) -> dict[str, Any]:
    """The community's names as those of the authors."""
    nested: dict[str, Any] = {name: weights[name] for name in ("alpha", "beta")}
    for part in ("unet_embedding", "unet_svd", "text_embedding"):
        prefix = f"{part}."
        theirs = "embeeding" if part == "text_embedding" else part
        nested[theirs] = {n.removeprefix(prefix): value for n, value in weights.items() if n.startswith(prefix)}
    return nested
