"""What decides a result: stored with what was made, and compared whenever that is resumed or reused.

An identity is nested dicts of JSON values. There is one function for each kind of artefact: `pairs`, `run`, `images`
and `scores`. An identity holds every setting that decides the result (docs/reproducibility.md lists the others), and
what the settings do not tell: the contents of files, the commits of hub sources, the dtype that `auto` stands for, and
the version of the algorithm.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from golden_noise.errors import UserError
from golden_noise.hub import BUNDLED, PACKAGE, hub_commit

Identity = dict[str, Any]

#: Raised whenever the same settings give another result than before.
ALGORITHM = {"pairs": 1, "run": 1, "images": 1, "scores": 1}
#: Options of conf/memory that change pixels; the others change only where models lie, or rounding.
VISIBLE = ("attention", "vae_tiling", "vae_upcast")  # but for the first those of images only
#: Settings that name weights on the hub, and perhaps a revision in NAME_revision or revision.
SOURCES = ("source", "model", "weights", "processor", "tokenizer", "detector", "clip")
#: With these a training may go on changed; patterns of dotted names, each with all that is below it.
FREE = (
    # Names and places.
    *("job", "name", "folder", "paths", "data_dir", "data.data_dir", "data.cache"),
    *("callbacks.*.dirpath", "trainer.default_root_dir"),
    # Machines, processes and memory.
    *(
        "device",
        "devices",
        "num_threads",
        "data.num_workers",
        "data.prefetch_factor",
        "data.persistent_workers",
        "data.pin_memory",
        "data.embeds_cache",
        "model.npnet.gradient_checkpointing",
    ),
    *("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy"),
    # The length.
    *("trainer.max_epochs", "trainer.max_steps", "trainer.max_time"),
    # What is shown, logged and saved meanwhile.
    *("logger", "trainer.logger", "trainer.log_every_n_steps", "trainer.profiler", "trainer.enable_progress_bar"),
    *("trainer.enable_model_summary", "callbacks.last", "callbacks.learning_rate", "callbacks.progress"),
    *("callbacks.timer", "sample_every_n_epochs", "pipeline.batch_size"),
    # What follows the training.
    *("evaluate", "evaluation", "metric"),
    # What the pairs are made of: these are compared themselves.
    *("search", "prompts", "collection", "data_seed"),
    # What reaches the training through other settings, or not at all.
    *("recipe", "pipeline.conv_in", "pipeline.npnet", "pipeline.vocabulary", "pipeline.bundled"),
    "pipeline.search_steps",
    *("pipeline.steps", "pipeline.guidance", "pipeline.guidance_rescale", "pipeline.negative_prompt"),
)
#: What earlier versions did not record.
ADDED = ("algorithm", "files", "commits", "device")
DTYPES = ("model.dtype", "pipeline.dtype")
#: Settings that only a hash tells, by their names' start, and what it means if they change.
HASHED = {
    "files.": "other files in {}",
    "npnet": "other weights of npnet",
    "prompts.texts": "other prompts, or in another order",
    "pairs.shards": "other pairs",
}
ABSENT = "(absent)"
SHOWN, LONGEST = 3, 100  # differences that a refusal names, and characters of a value in it

SAMPLES, BLOCK = 256, 256 * 1024  # of a large file: 64 MiB in all


# One function for each kind of artefact ------------------------------------------------------------------------


def pairs(config: Mapping[str, Any], dtype: str) -> Identity:
    """What decides noise pairs.

    Args:
        config: of a job that collects, in plain containers.
        dtype: that the pipeline runs in on this device.
    """
    options = config["collection"]
    drawn = options["select_by"] is not None
    settings = model(config["pipeline"]["model"], dtype, VISIBLE if drawn else VISIBLE[:1])
    sampler = {name: settings.pop(name) for name in ("steps", "guidance")}  # no image, no influence on the pairs
    metrics = without_device(config.get("metric") or {})
    selection = {"metrics": metrics, "by": options["select_by"], "margin": options["margin"], "sampler": sampler}
    identity = {
        "pipeline": pipeline(config),
        "model": settings,
        "search": without_device(config["search"]),
        "prompts": config["prompts"],
        "shard_size": options["shard_size"],
        "store_embeds": options["store_embeds"],
        "selection": selection if drawn else {"by": None},
    }
    used = {name: identity[name] for name in ("model", "search", "selection")}
    return identity | _beside("pairs", used)


def pipeline(config: Mapping[str, Any]) -> Identity:
    """What pairs and the training that reads them must agree on."""
    return {name: config["pipeline"][name] for name in ("name", "latent_shape", "embeds_shape")}


def run(config: Mapping[str, Any], dtype: str, device: str, pairs: Identity) -> Identity:
    """What decides the weights of a training.

    Args:
        config: of the train job, in plain containers.
        dtype: that the pipeline runs in on this device.
        device: the kind of device: cuda, mps, cpu.
        pairs: what is trained on, see `pairs_read`.
    """
    kept = _without(config, FREE)
    npnet = kept.get("model", {}).get("npnet", {})
    if npnet.get("_partial_") or kept.get("data", {}).get("embeddings") == "encode":
        kept["pipeline"]["model"] = model(kept["pipeline"]["model"], dtype)
    else:  # nothing of it takes part in the training
        del kept["pipeline"]["model"]
    if kind := sign_device(npnet, device):
        kept["device"] = kind
    start = {"pretrained": npnet.get("pretrained"), "npnet": _weights_in(kept.get("npnet"))}
    used = start | {"model": kept["pipeline"].get("model")}
    return kept | {"pairs": pairs} | _beside("run", used)


def pairs_read(made_by: Mapping[str, Any], shards: Mapping[str, str]) -> Identity:
    """The pairs of an index, for `run`: what made them, and their shards' checksums by name."""
    return {"made_by": dict(made_by), "shards": digest(sorted(shards.items()))}


def images(model: Mapping[str, Any], **parts: Any) -> Identity:
    """What decides images, beside their prompts and seeds.

    Args:
        model: of the pipeline, see `model`.
        parts: what the starting noise is made by, in plain containers; those that are None are left out.
    """
    own = {name: part for name, part in parts.items() if part is not None}
    used = {"model": model, **{name: own.get(name) for name in ("search", "best_of")}}
    return {"pipeline": dict(model), **own} | _beside("images", used, files={})


def sign_device(npnet: Mapping[str, Any], device: str) -> str | None:
    """The kind of device where it decides what a network gives: the signs of singular vectors may be its own."""
    return device if npnet.get("svd") and npnet.get("signs") == "raw" else None


def scores(metric: Any, version: str) -> Identity:
    """What decides the scores of images, beside these and their prompts.

    Args:
        metric: its settings, in plain containers.
        version: that the metric gives itself.
    """
    return {"metric": without_device(metric), "version": version} | _beside("scores", metric)


def model(settings: Mapping[str, Any], dtype: str, visible: Sequence[str] = VISIBLE) -> Identity:
    """What decides the images of a pipeline: `pipeline.model` with the dtype that `auto` stands for."""
    memory = settings.get("memory") or {}
    chosen = {name: memory[name] for name in visible if memory.get(name)}
    return without_device(settings) | {"dtype": dtype} | ({"memory": chosen} if chosen else {})


def without_device(node: Any) -> Any:
    """The same settings on another device are the same settings; so are those of before there was a choice of VAEs."""
    if isinstance(node, Mapping):
        kept = {key: value for key, value in node.items() if (key, value) != ("vae", None)}
        return {key: without_device(value) for key, value in kept.items() if key not in ("device", "memory")}
    return node


def _beside(kind: str, used: Any, **defaults: Any) -> Identity:
    """What the settings do not tell of the weights that they name."""
    found = {"files": local_files(used), "commits": dict(_commits(used))}
    return {"algorithm": ALGORITHM[kind], **defaults, **{name: value for name, value in found.items() if value}}


def _without(node: Any, free: tuple[str, ...], name: str = "") -> Any:
    if not isinstance(node, Mapping):
        return node
    kept = {}
    for key, value in node.items():
        inner = f"{name}.{key}".lstrip(".")
        if not any(fnmatchcase(inner, pattern) for pattern in free):
            kept[key] = _without(value, free, inner)
    return kept


# Comparing -----------------------------------------------------------------------------------------------------


def check(place: object, old: Mapping[str, Any], new: Mapping[str, Any], advice: str) -> None:
    """Refuse what was made otherwise.

    Args:
        place: that holds it.
        old: its identity.
        new: the identity that it should have.
        advice: what to do about it.

    Raises:
        UserError: they differ; it names the settings.
    """
    if found := changes(old, new):
        raise UserError(f"{place} was made with {_described(found)}: {advice}")


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """The differences of two identities; what one of them does not know does not count.

    Earlier versions recorded neither what `ADDED` names nor what `dtype=auto` stood for, and the hub does not always
    tell a commit.
    """
    old, new = plain(old), plain(new)
    if "algorithm" not in old:
        new = {name: value for name, value in new.items() if name in old or name not in ADDED}
        found = [each for each in differences(old, new) if not (each[0] in DTYPES and each[1] in ("auto", ABSENT))]
    else:
        found = differences({"commits": {}, **old}, {"commits": {}, **new})
    return [each for each in found if not (each[0].startswith("commits.") and ABSENT in each[1:])]


def differences(old: Any, new: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted key, old value, new value) wherever two nested configurations differ."""
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        same = old == new and isinstance(old, bool) == isinstance(new, bool)  # 1 == True in Python
        return [] if same else [(key, old, new)]
    found = []
    for name in [*old, *(name for name in new if name not in old)]:
        inner_key = f"{key}.{name}" if key else name
        found += differences(old.get(name, ABSENT), new.get(name, ABSENT), inner_key)
    return found


def plain(identity: Any) -> Any:
    """An identity as it will be when it is read back: tuples become lists, keys strings."""
    return json.loads(json.dumps(identity))


def _described(found: list[tuple[str, Any, Any]]) -> str:
    """The first differences as `KEY=OLD, now KEY=NEW`; what only a hash tells, in words."""
    told = [each for each in found if _in_words(each[0]) is None]
    if not told:
        return " and ".join(dict.fromkeys(str(_in_words(key)) for key, _, _ in found[:SHOWN]))
    have = ", ".join(f"{key}={_shown(old)}" for key, old, _ in told[:SHOWN])
    want = ", ".join(f"{key}={_shown(new)}" for key, _, new in told[:SHOWN])
    more = f" and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    return f"{have}, now {want}{more}"


def _in_words(key: str) -> str | None:
    for prefix, words in HASHED.items():
        if key == prefix or (prefix.endswith(".") and key.startswith(prefix)):
            return words.format(key.removeprefix(prefix))
    return None


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


# Weights that settings name ------------------------------------------------------------------------------------


def _commits(settings: Any) -> Iterator[tuple[str, str]]:
    """The commits of the hub's repositories that settings name, where they can be known."""
    if not isinstance(settings, Mapping):
        return
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _commits(value)
        elif name in SOURCES and isinstance(value, str):
            repository = "/".join(value.split("/")[:2])
            revision = settings.get(f"{name}_revision", settings.get("revision"))
            if commit := hub_commit(repository, revision):
                yield f"{repository}@{revision or 'main'}", commit


def local_files(settings: Any) -> dict[str, str]:
    """Digests of the files and folders on this machine that settings name: other weights may come to the same place.

    They are of contents: dates change where nothing else does (a copy), and the header of a safetensors file, which
    tells shapes only, is the same for every training of a model. So that gigabytes are not read at every start, of a
    large file evenly spaced samples count; no training leaves all of them as they were.
    """
    if isinstance(settings, Mapping):
        return {name: value for part in settings.values() for name, value in local_files(part).items()}
    if not isinstance(settings, str) or not settings:
        return {}
    bundled = settings.startswith(BUNDLED)
    place = PACKAGE / settings.removeprefix(BUNDLED) if bundled else Path(settings).expanduser()
    try:
        files = sorted(path for path in (place.rglob("*") if place.is_dir() else [place]) if path.is_file())
    except (OSError, ValueError):  # too long for a path, or with a null character
        return {}
    if not files:
        return {}
    return {settings: digest([(path.relative_to(place).as_posix(), sampled_digest(path)) for path in files])}


def _weights_in(npnet: str | None) -> str | None:
    """The file of weights where `npnet` is the folder of a network or a training, whose other files may change."""
    places = [] if npnet is None else [Path(npnet).expanduser() / inside for inside in ("", "npnet/best", "best")]
    files = [place / "diffusion_pytorch_model.safetensors" for place in places]
    return next((str(file) for file in files if file.is_file()), npnet)


def digest(*parts: Any) -> str:
    """A short name for plain containers: a hash of them."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def sampled_digest(path: Path) -> str:
    """Hash of a file's content, or of its size and SAMPLES blocks from start to end where it is larger than these."""
    status = path.stat()
    return _sampled_digest(path, status.st_size, status.st_mtime_ns)


@cache
def _sampled_digest(path: Path, size: int, changed: int) -> str:
    """The same, read once in a process: every method of an evaluation asks for the same pipeline."""
    if size <= SAMPLES * BLOCK:
        return file_digest(path)
    found = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for i in range(SAMPLES):
            file.seek(i * (size - BLOCK) // (SAMPLES - 1))
            found.update(file.read(BLOCK))
    return found.hexdigest()


def file_digest(path: Path) -> str:
    """Hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
