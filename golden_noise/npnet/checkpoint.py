"""NPNets from files and to files: diffusers folders, and the two forms of the published weights.

The paper's authors publish `.pth` files, a dict of `unet_embedding` (residual branch), `unet_svd`, `embeeding` (text
injection), `alpha` and `beta`. The community's `.safetensors` files flatten it to `unet_embedding.*`, `unet_svd.*`,
`text_embedding.*`, `alpha` and `beta`, the names used here. Both hold the variant `svd_unet+unet` on a whole Swin-T.
"""

import pkgutil
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file, save_file
from torch import Tensor

from golden_noise.errors import UserError
from golden_noise.npnet.denoiser import DenoiserNPNet
from golden_noise.npnet.npnet import NPNet
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.loading import why_missing
from golden_noise.weights import hub_problem, locate

Weights = dict[str, Tensor]

OWN_CLASS = re.compile(r"(?P<name>\w+(\.\w+)+):(?P<place>.+)")
AUTHORS, COMMUNITY = (".pth", ".pt"), ".safetensors"
TOKENS = 77  # CLIP's; the files hold the product of tokens and width only
# What every published NPNet is, beside its shapes.
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
    "": "",
}
QKV, TO_QKV = "unet_svd.attention.qkv.weight", [f"svd_branch.attention.to_{part}.weight" for part in "qkv"]
# In the files, but without influence: the classifier, a BatchNorm that is never called, and buffers of old timm.
UNUSED = re.compile(r"unet_embedding\.swin\.head\.|unet_svd\.bn\.|.*\.(relative_position_index|attn_mask)$")


def load(
    source: str,
    option: str = "npnet",
    load_pipeline: Callable[[], Pipeline] | None = None,
    fit: str | None = None,
) -> NPNet | DenoiserNPNet:
    """Loads any kind of NPNet, in evaluation mode, from wherever it is.

    Args:
        source: a folder written by training (a whole run's stands for its `npnet/best`) or a hub id of one, or
            published weights: a `.pth` or `.safetensors` file, or ORG/NAME/FILE on the hub. MODULE.CLASS:FOLDER for a
            network of another class, which no saved file may name: weights come from strangers.
        option: the setting that gave `source`, for errors.
        load_pipeline: gives the pipeline, for an NPNet that shares its denoiser.
        fit: what to do with noise of other sizes, see `NPNet`; None: as saved.

    Raises:
        UserError: there is no NPNet.
    """
    options = {"fit": fit} if fit else {}
    if own := OWN_CLASS.fullmatch(source):
        return _load_own(own["name"], own["place"], option, **options)
    if Path(source).suffix in (*AUTHORS, COMMUNITY):
        return load_published(source, option, **options)
    place = best_of_run(locate(source, option))
    problem = hub_problem(place)
    cached = problem is not None
    try:
        config = NPNet.load_config(place, local_files_only=cached)
        if isinstance(config, dict) and config.get("_class_name") == DenoiserNPNet.__name__:
            if fit:
                raise UserError(f"fit={fit}: {source} shares the pipeline's denoiser and takes any size: leave fit out")
            if load_pipeline is None:
                raise UserError(
                    f"{source} holds adapters of a pipeline's denoiser: {option} must be a network of its own"
                )
            return DenoiserNPNet.from_pretrained(place, load_pipeline(), local_files_only=cached)
        return NPNet.from_pretrained(place, local_files_only=cached, **options)
    except OSError as error:
        raise UserError(
            f"no NPNet in {source} ({why_missing(error, problem)}): give {option} outputs/train/RUN, a hub id, or "
            "published weights (FILE.pth, FILE.safetensors, ORG/NAME/FILE)"
        ) from error


def best_of_run(place: str) -> str:
    """The folder of the best NPNet where `place` is the folder of a training run, else `place` itself."""
    inside = [Path(place), Path(place) / "npnet/best", Path(place) / "best"]
    return str(next((folder for folder in inside if (folder / "config.json").is_file()), place))


def _load_own(name: str, source: str, option: str, **options: Any) -> Any:
    """Loads a network of a class that the user names: a diffusers model with `golden(noise, prompt)`."""
    try:
        kind: Any = pkgutil.resolve_name(name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{option}={name}:{source}: {error}; is its folder in PYTHONPATH?") from error
    is_network = isinstance(kind, type) and issubclass(kind, ModelMixin) and callable(getattr(kind, "golden", None))
    if not is_network:
        raise UserError(f"{option}={name}:{source}: {name} is no diffusers ModelMixin with golden(noise, prompt)")
    place = best_of_run(locate(source, option))
    problem = hub_problem(place)
    try:
        return kind.from_pretrained(place, local_files_only=problem is not None, **options).eval()
    except OSError as error:
        reason = why_missing(error, problem)
        raise UserError(f"no {name} in {source} ({reason}): give {option} the folder of one") from error


def load_published(source: str, option: str = "npnet", **options: Any) -> NPNet:
    """Loads published weights; `load` gives the arguments.

    The kind (SDXL and DreamShaper, Hunyuan-DiT, ...) is read from the shapes.

    Raises:
        UserError: no such file, or it holds anything else.
    """
    file = _find(source, option)
    weights = _read(file, source)
    config = PUBLISHED | _shapes(weights, source) | options
    ours = {_our_name(name): value for name, value in weights.items() if name != QKV and not UNUSED.match(name)}
    ours |= dict(zip(TO_QKV, weights[QKV].chunk(3), strict=True))
    with torch.device("meta"):  # sizes that do not belong together could ask for any amount of memory
        expected = NPNet(**config).state_dict()
    for name in [*expected, *ours]:
        have, want = (tuple(part[name].shape) if name in part else None for part in (ours, expected))
        if have != want:
            raise UserError(f"{source} is no published NPNet: {name} has shape {have} and should have {want}")
        if not (ours[name].is_floating_point() and ours[name].isfinite().all()):
            raise UserError(f"{source} is damaged: {name} holds something else than finite numbers")
    npnet = NPNet(**config).eval()
    npnet.load_state_dict(ours)
    return npnet


def save(npnet: NPNet, target: str) -> None:
    """Saves an NPNet: `.pth` as the authors do, `.safetensors` as the community does, anything else as a folder.

    What the published network holds without using it is filled in, with zeros where nothing is normalised, so
    that its own code loads the file.

    Raises:
        UserError: the published forms cannot hold this NPNet.
    """
    suffix = Path(target).suffix
    if suffix not in (*AUTHORS, COMMUNITY):
        if Path(target).is_file():
            raise UserError(f"{target} is a file: give a folder, or a name that ends in .pth or .safetensors")
        npnet.save_pretrained(target)
        return
    weights = _published_weights(npnet, target)
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    partial = f"{target}.partial"  # a file of the final name is always complete
    if suffix == COMMUNITY:
        save_file(weights, partial)
    else:
        torch.save(_nested(weights), partial)
    Path(partial).replace(target)


def _nested(weights: Weights) -> dict[str, Any]:
    """The community's names as those of the authors."""
    nested: dict[str, Any] = {name: weights[name] for name in ("alpha", "beta")}
    for part in ("unet_embedding", "unet_svd", "text_embedding"):
        prefix = f"{part}."
        theirs = "embeeding" if part == "text_embedding" else part
        nested[theirs] = {n.removeprefix(prefix): value for n, value in weights.items() if n.startswith(prefix)}
    return nested


def _find(source: str, option: str) -> Path:
    file = Path(source).expanduser()
    if file.is_file():
        return file
    org, _, rest = source.partition("/")
    name, _, inside = rest.partition("/")
    if not inside or source.startswith((".", "/", "~")):
        raise UserError(f"no file {file}: give {option} an existing file or ORG/NAME/FILE on the hub")
    problem = hub_problem(source)
    try:
        return Path(hf_hub_download(f"{org}/{name}", inside, local_files_only=problem is not None))
    except (OSError, ValueError) as error:
        reason = why_missing(error, problem)
        raise UserError(f"cannot load {source} ({reason}): give {option} another file") from error


def _read(file: Path, source: str) -> Weights:
    """The weights under the community's names."""
    try:
        if file.suffix == COMMUNITY:
            content = load_file(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged or hostile files fail in every way
        raise UserError(f"{source} holds no tensors, or more than tensors: it is not loaded") from error
    weights: Weights = {}
    for name, value in content.items() if isinstance(content, dict) else ():
        part = "text_embedding" if name == "embeeding" else name
        for key, tensor in value.items() if isinstance(value, dict) else [("", value)]:
            weights[f"{part}.{key}" if key else f"{part}"] = tensor
    if not all(isinstance(value, Tensor) and _is_plain(value) for value in weights.values()):
        raise UserError(f"{source} is no published NPNet: it holds more than tensors")
    if sum(tensor.nbytes for tensor in weights.values()) > file.stat().st_size:
        raise UserError(f"{source} is no published NPNet: its tensors are larger than the file")
    return weights


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_meta


def _shapes(weights: Weights, source: str) -> dict[str, Any]:
    """`latent_shape` and `embeds_shape` of published weights."""
    matrices = ("unet_svd.mlp1.0.weight", "unet_svd.mlp2.0.weight", QKV, "text_embedding.linear.weight")
    sizes = []
    for name, axes in {"unet_embedding.upconv.weight": 4, **dict.fromkeys(matrices, 2)}.items():
        if name not in weights or weights[name].ndim != axes or weights[name].numel() == 0:
            raise UserError(f"{source} is no published NPNet: it has no {name}, or an odd one")
        sizes.append(weights[name].shape)
    (channels, *_), (_, m), (_, n), (rows, _), (_, numbers) = sizes
    if channels % 2 or channels < 2 or m % 2 or n % (channels // 2) or rows % 3 or numbers % TOKENS:
        raise UserError(
            f"{source} is no published NPNet: its shapes fit no noise and no prompts of {TOKENS} tokens "
            f"({channels} channels, matrices of {m}x{n}, {numbers} numbers per prompt)"
        )
    return {"latent_shape": [channels, m // 2, n // (channels // 2)], "embeds_shape": [TOKENS, numbers // TOKENS]}


def _our_name(name: str) -> str:
    prefix = next(prefix for prefix in NAMES if name.startswith(prefix))
    return NAMES[prefix] + name.removeprefix(prefix)


def _their_name(name: str) -> str:
    theirs, ours = next((theirs, ours) for theirs, ours in NAMES.items() if name.startswith(ours))
    return theirs + name.removeprefix(ours)


def _published_weights(npnet: NPNet, target: str) -> Weights:
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
