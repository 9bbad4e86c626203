"""What decides a result: stored with what was made, and compared whenever that is resumed or reused.

An identity is nested dicts of JSON values. There is one function for each kind of artefact: `pairs`, `run`, `images`
and `scores`. An identity holds every setting that decides the result (docs/reproducibility.md lists the others), and
what the settings leave open: the contents of files, the commits of hub sources, the dtype that `auto` stands for, and
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
from golden_noise.hub import BUNDLED, PACKAGE, hub_commit, in_run

Identity = dict[str, Any]

#: Raised whenever the same settings give another result than before.
ALGORITHM = {"pairs": 1, "run": 1, "images": 1, "scores": 1}
#: Options of conf/memory that change pixels; the others change only where models lie, or rounding.
VISIBLE = ("attention", "vae_tiling", "vae_upcast")  # but for the first those of images only
#: The objective of trainings that record none.
PAIRS = "golden_noise.objectives.pairs.Pairs"
#: Settings that name weights on the hub; NAME_revision or revision beside them may name a revision.
SOURCES = ("source", "config", "model", "weights", "processor", "tokenizer", "detector", "clip")
#: Settings of pipelines that records of earlier versions lack, which knew of no other values.
DEFAULTS = (("vae", None), ("config", None), ("prompt_syntax", "plain"), ("prompt_chunks", 1))
#: Settings that may change when a training is resumed; patterns of dotted names, each with all that is below it.
FREE = (
    # Names and paths.
    *("job", "name", "folder", "paths", "data_dir", "data.data_dir", "data.cache"),
    *("callbacks.*.dirpath", "trainer.default_root_dir"),
    # Machines, processes and memory.
    *("device", "devices", "num_threads", "model.npnet.gradient_checkpointing", "data.num_workers"),
    *("data.embeds_cache", "data.prefetch_factor", "data.persistent_workers", "data.pin_memory"),
    *("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy"),
    # The length.
    *("trainer.max_epochs", "trainer.max_steps", "trainer.max_time"),
    # What is shown, logged and saved meanwhile.
    *("logger", "trainer.logger", "trainer.log_every_n_steps", "trainer.profiler", "trainer.enable_progress_bar"),
    *(
        "trainer.inference_mode",
        "trainer.enable_model_summary",
        "callbacks.last",
        "callbacks.learning_rate",
        "callbacks.progress",
    ),
    *("callbacks.timer", "sample_every_n_epochs", "pipeline.batch_size"),
    # What follows the training.
    *("evaluate", "evaluation", "metric", "reward", "objective.*.device"),
    # What the pairs are made of: these are compared themselves.
    *("search", "prompts", "collection", "data_seed"),
    # What reaches the training through other settings, or not at all.
    *("recipe", "pipeline.conv_in", "pipeline.npnet", "pipeline.vocabulary", "pipeline.bundled"),
    *("pipeline.search_steps", "pipeline.steps", "pipeline.guidance", "pipeline.guidance_rescale"),
    *("pipeline.negative_prompt", "pipeline.prompt_syntax", "pipeline.prompt_chunks"),
)
#: What earlier versions did not record.
ADDED = ("algorithm", "files", "commits", "device")
DTYPES = ("model.dtype", "pipeline.dtype")
#: What a change of settings that are recorded as hashes means, by the start of their names.
HASHED = {
    "files.": "other files in {}",
    "npnet": "other weights of npnet",
    "noise_file": "other noise in noise_file",
    "prompts.texts": "other prompts, or in another order",
    "pairs.prompts": "other prompts, or in another order",
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
    drawn = options["select_by"] is not None  # else no image is drawn
    settings = model(config["pipeline"]["model"], dtype, VISIBLE if drawn else VISIBLE[:1])
    sampler = {name: settings.pop(name) for name in ("steps", "guidance")}
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
    if options.get("guided"):
        identity["guided"] = options["guided"]
    return identity | _weights("pairs", {name: identity[name] for name in ("model", "search", "selection")})


def pipeline(config: Mapping[str, Any]) -> Identity:
    """What pairs and the training that reads them must agree on."""
    shared = {name: config["pipeline"][name] for name in ("name", "latent_shape", "embeds_shape")}
    syntax = config["pipeline"].get("prompt_syntax", "plain")
    return shared if syntax == "plain" else shared | {"prompt_syntax": syntax}


def run(config: Mapping[str, Any], dtype: str, device: str, pairs: Identity) -> Identity:
    """What decides the weights of a training.

    Args:
        config: of the train job, in plain containers.
        dtype: that the pipeline runs in on this device.
        device: cuda, mps or cpu.
        pairs: what is trained on, see `pairs_read`.
    """
    kept = _without(config, FREE)
    npnet = kept.get("model", {}).get("npnet", {})
    objective = config.get("objective", {})
    if objective.get("_target_") == PAIRS and not objective.get("filter"):
        del kept["objective"]  # as before there was a choice
    if "objective" in kept or npnet.get("_partial_") or kept.get("data", {}).get("embeddings") == "encode":
        kept["pipeline"]["model"] = model(kept["pipeline"]["model"], dtype)
    else:  # nothing of it takes part in the training
        del kept["pipeline"]["model"]
    if sign_device(npnet, device):
        kept["device"] = device
    weights = in_run(kept.get("npnet"), "diffusion_pytorch_model.safetensors")  # other files of its folder may change
    start = {"pretrained": npnet.get("pretrained"), "npnet": str(weights) if weights else kept.get("npnet")}
    used = start | {"model": kept["pipeline"].get("model"), "objective": kept.get("objective")}
    return kept | {"pairs": pairs} | _weights("run", used)


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
    used = {"model": model, "search": own.get("search"), "best_of": own.get("best_of")}
    return {"pipeline": dict(model), **own} | _weights("images", used, files={})


def sign_device(npnet: Mapping[str, Any], device: str) -> str | None:
    """The device if it decides a network's output: the signs of singular vectors may depend on it."""
    return device if npnet.get("svd") and npnet.get("signs") == "raw" else None


def scores(metric: Any, version: str) -> Identity:
    """What decides the scores of images, beside these and their prompts.

    Args:
        metric: its settings, in plain containers.
        version: that the metric gives itself.
    """
    return {"metric": without_device(metric), "version": version} | _weights("scores", metric)


def model(settings: Mapping[str, Any], dtype: str, visible: Sequence[str] = VISIBLE) -> Identity:
    """What decides the images of a pipeline: `pipeline.model` with the dtype that `auto` stands for."""
    memory = settings.get("memory") or {}
    chosen = {name: memory[name] for name in visible if memory.get(name)}
    own = without_device({key: value for key, value in settings.items() if key != "loras"})
    return own | _adapters(settings) | {"dtype": dtype} | ({"memory": chosen} if chosen else {})


def _adapters(settings: Mapping[str, Any]) -> Identity:
    """The adapters of a pipeline; none, or one of full strength, as before there could be several."""
    if "loras" not in settings:
        return {}
    loras = {
        name: {key: value for key, value in lora.items() if (key, value) != ("strength", 1)}
        for name, lora in settings["loras"].items()
    }
    if len(loras) > 1 or any("strength" in lora for lora in loras.values()):
        return {"loras": loras}
    return {"lora": next(iter(loras.values()), None)}


def without_device(node: Any) -> Any:
    """Settings without those of the device, and as they were before there were others."""
    if isinstance(node, Mapping):
        kept = {key: value for key, value in node.items() if (key, value) not in DEFAULTS}
        return {key: without_device(value) for key, value in kept.items() if key not in ("device", "memory")}
    return node


def _weights(artefact: str, used: Any, **defaults: Any) -> Identity:
    """The algorithm's version, and which weights are behind the names in the settings."""
    weights = {"files": local_files(used), "commits": dict(_commits(used))}
    return {"algorithm": ALGORITHM[artefact], **defaults, **{name: value for name, value in weights.items() if value}}


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


def check(path: object, old: Mapping[str, Any], new: Mapping[str, Any], advice: str) -> None:
    """Raise a UserError with the settings that differ and the advice if an artefact's identity is not the new one."""
    if changed := changes(old, new):
        raise UserError(f"{path} was made with {_describe(changed)}: {advice}")


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """The differences of two identities; what only one of them knows does not count.

    Earlier versions recorded neither what `ADDED` names nor what `dtype=auto` stood for, and the hub may not have named
    a commit.
    """
    old, new = plain(old), plain(new)
    if "algorithm" not in old:
        new = {name: value for name, value in new.items() if name in old or name not in ADDED}
        changed = [each for each in differences(old, new) if not (each[0] in DTYPES and each[1] in ("auto", ABSENT))]
    else:
        changed = differences({"commits": {}, **old}, {"commits": {}, **new})
    return [each for each in changed if not (each[0].startswith("commits.") and ABSENT in each[1:])]


def differences(old: Any, new: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted key, old value, new value) for every difference of two nested configurations."""
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        same = old == new and isinstance(old, bool) == isinstance(new, bool)  # 1 == True in Python
        return [] if same else [(key, old, new)]
    changed = []
    for name in {**old, **new}:
        changed += differences(old.get(name, ABSENT), new.get(name, ABSENT), f"{key}.{name}" if key else name)
    return changed


def plain(identity: Any) -> Any:
    """An identity as it will be when it is read back: tuples become lists, keys strings."""
    return json.loads(json.dumps(identity))


def _describe(changed: list[tuple[str, Any, Any]]) -> str:
    """The first differences as `KEY=OLD, now KEY=NEW`, those of hashes in words."""
    readable = [each for each in changed if _in_words(each[0]) is None]
    if not readable:
        return " and ".join(dict.fromkeys(str(_in_words(key)) for key, _, _ in changed[:SHOWN]))
    have = ", ".join(f"{key}={_shown(old)}" for key, old, _ in readable[:SHOWN])
    want = ", ".join(f"{key}={_shown(new)}" for key, _, new in readable[:SHOWN])
    more = f" and {len(readable) - SHOWN} more" if len(readable) > SHOWN else ""
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
    """Digests of the files and folders on this machine that settings name, whose weights may be replaced.

    They are of contents: a copy has another date, and the header of a safetensors file, which holds shapes only, is the
    same for every training of a model. To avoid reading gigabytes at every start, large files are sampled at evenly
    spaced blocks; every training changes some of them.
    """
    if isinstance(settings, Mapping):
        return {name: value for part in settings.values() for name, value in local_files(part).items()}
    if not isinstance(settings, str) or not settings:
        return {}
    bundled = settings.startswith(BUNDLED)
    root = PACKAGE / settings.removeprefix(BUNDLED) if bundled else Path(settings).expanduser()
    try:
        files = sorted(path for path in (root.rglob("*") if root.is_dir() else [root]) if path.is_file())
    except (OSError, ValueError):  # too long for a path, or with a null character
        files = []
    digests = [(path.relative_to(root).as_posix(), sampled_digest(path)) for path in files]
    return {settings: digest(digests)} if digests else {}


def digest(*parts: Any) -> str:
    """A short hash of plain containers."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def sampled_digest(path: Path) -> str:
    """Hash of a file's content; of a large file, of its size and SAMPLES blocks from start to end."""
    status = path.stat()
    return _sampled_digest(path, status.st_size, status.st_mtime_ns)


@cache
def _sampled_digest(path: Path, size: int, changed: int) -> str:
    """Read once in a process: every method of an evaluation uses the same pipeline."""
    if size <= SAMPLES * BLOCK:
        return file_digest(path)
    sha256 = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for i in range(SAMPLES):
            file.seek(i * (size - BLOCK) // (SAMPLES - 1))
            sha256.update(file.read(BLOCK))
    return sha256.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
