"""What decides a result: every setting but the documented ones, and what settings do not tell."""

import operator
import os
from fnmatch import fnmatchcase
from functools import reduce

import pytest
from omegaconf import OmegaConf

from golden_noise import hub, identity
from golden_noise.cli.conf import CONF
from golden_noise.cli.config import job_config
from golden_noise.collecting.job import provenance
from golden_noise.errors import UserError
from golden_noise.generation.provenance import drawing_settings
from golden_noise.identity import (
    BLOCK,
    SAMPLES,
    changes,
    check,
    differences,
    digest,
    file_digest,
    local_files,
    sampled_digest,
)
from golden_noise.npnet import NPNet
from golden_noise.pipelines.loading import model_dtype
from golden_noise.training.job import run_identity

COMMIT = "0123456789" * 4
SDXL = ["pipeline=sdxl", "prompts=file", "prompts.path=x.txt"]


def composed(job, *options):
    # What hydra itself gives a job when it runs.
    places = {"collect": ["data_dir=pairs"], "train": ["data_dir=pairs", "folder=run", "name=x"]}
    rest = places.get(job, ["folder=run", "name=x"])
    return job_config(job, [*rest, *options])


# Every setting ------------------------------------------------------------------------------------------------

ANYWHERE = [
    *("job", "name", "folder", "paths", "data_dir", "device", "logger", "*.device"),
    *(
        "recipe",
        "pipeline.conv_in",
        "pipeline.npnet",
        "pipeline.vocabulary",
        "pipeline.bundled",
        "pipeline.model.memory",
    ),
    "pipeline.batch_size",  # rounding only
]
MEMORY = {f"pipeline.model.memory.{name}" for name in ("attention", "vae_tiling", "vae_upcast")}


def leaves(node, name=""):
    for key, value in node.items():
        inner = f"{name}.{key}".lstrip(".")
        if isinstance(value, dict) and value:
            yield from leaves(value, inner)
        else:
            yield inner


def at(node, name):
    return reduce(operator.getitem, name.split("."), node)


def changed(name, value):
    if name.endswith("pipeline.model._target_"):
        return "golden_noise.pipelines.flux.FluxPipeline.load"
    if name.endswith("pipeline.model.loras"):
        return {"style": {"source": "ORG/NAME"}}
    if name.endswith("pipeline.model.dtype"):
        return "bfloat16"
    if name == "evaluation.best_of.metric":
        return "aes"
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 8
    if isinstance(value, list):
        return [*value, 8]
    return {"more": 1} if isinstance(value, dict) else f"{value}x"


def unnoticed(config, identify):
    """The settings that decide nothing, each changed alone; what others take over from it changes with it."""
    raw = OmegaConf.to_container(config, resolve=False)
    OmegaConf.set_struct(config, False)
    before, found = identify(config), []
    for name in leaves(raw):
        value = OmegaConf.select(config, name)
        value = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        OmegaConf.update(config, name, changed(name, value), merge=False)
        if identify(config) == before:
            found.append(name)
        OmegaConf.update(config, name, at(raw, name), merge=False)
    assert OmegaConf.to_container(config, resolve=False) == raw
    return found


def not_free(names, free):
    return [name for name in names if not any(fnmatchcase(name, f) or fnmatchcase(name, f"{f}.*") for f in free)]


def trained(config):
    return run_identity(config, {"made_by": provenance(config)} if config.pipeline.bundled else {})


def drawn(config, npnet):
    networks = {"npnet": npnet}
    methods = ["standard", "search", "npnet", "best_of_n"]
    metric = OmegaConf.to_container(config.metric, resolve=True)
    scores = {name: identity.scores(settings, "1") for name, settings in metric.items()}
    return drawing_settings(config, methods, networks), scores


def test_every_setting_decides_about_pairs_but_the_documented_ones():
    options = [*SDXL, "metric=pickscore", "collection.select_by=pickscore", "search=zigzag"]
    found = unnoticed(composed("collect", *options), provenance)
    free = ["mode", "fabric", "seed", "collection.batch_size", "collection.failures_in_a_row", "upload"]
    free += ["pipeline.pooled_shape"]  # of NPNets
    free += ["reward"]  # of searches that interpolate it
    assert not_free(found, [*ANYWHERE, *free]) == [] and not MEMORY & {*found}
    assert {"mode", "collection.batch_size", "pipeline.model.memory.offload"} <= {*found}


@pytest.mark.parametrize(
    "model", ["denoiser_lora", "svd_unet+unet", pytest.param("low_frequency", marks=pytest.mark.slow)]
)
def test_every_setting_decides_about_a_training_but_the_documented_ones(model):
    """The miniature's pairs are collected on demand, so that what they are made of is among the settings."""
    config = composed("train", f"model={model}", "search=redenoise", "pipeline.model.source=ORG/NAME")
    free = [*identity.FREE, "pipeline.model.device", "pipeline.model.memory"]
    for made_of in ("search", "prompts", "data_seed"):
        free.remove(made_of)
    if model != "denoiser_lora":  # no image is drawn
        free += ["pipeline.model.steps", "pipeline.model.guidance"]
    assert not_free(unnoticed(config, trained), free) == []


def test_every_setting_decides_about_images_and_scores_but_the_documented_ones():
    npnet = NPNet((4, 8, 8), (16, 128), backbone=None)
    found = unnoticed(composed("evaluate", *SDXL, "metric=[pickscore,aes]"), lambda config: drawn(config, npnet))
    free = ["seed", "prompts", "evaluation.prompts"]  # every image carries its prompt and seed
    free += ["npnet", "fit", "long_prompt", "evaluation.checkpoints"]  # networks are compared themselves
    free += ["evaluation.batch_size", "evaluation.methods", "evaluation.searches", "fabric"]
    free += ["attention", "target"]  # of networks
    free += ["evaluation.constant"]  # whose factor is compared itself
    free += ["reward", "evaluation.guided"]  # of searches, and of a method, that are not among these
    free += ["pipeline.name", "pipeline.latent_shape", "pipeline.embeds_shape", "pipeline.pooled_shape"]  # of NPNets
    assert not_free(found, [*ANYWHERE, *free]) == [] and not MEMORY & {*found}


def test_the_list_of_the_page_is_the_list_of_the_code():
    page = (CONF.parent / "docs/reproducibility.md").read_text()
    for name in identity.FREE:
        assert f"`{name}`" in page, name


# What settings do not tell ------------------------------------------------------------------------------------


def test_auto_is_the_dtype_of_the_device():
    flux = {"_target_": "golden_noise.pipelines.flux.FluxPipeline.load", "dtype": "auto"}
    sdxl = flux | {"_target_": "golden_noise.pipelines.sdxl.SDXLPipeline.load"}
    assert [model_dtype(sdxl, device) for device in ("cpu", "cuda", "cuda:1", "mps")] == [
        "float32",
        "float16",
        "float16",
        "float32",
    ]
    assert model_dtype(flux, "cuda") == "bfloat16" and model_dtype(flux | {"dtype": "float16"}, "cuda") == "float16"
    with pytest.raises(UserError, match="dtype=int8 must be"):
        model_dtype(flux | {"dtype": "int8"}, "cpu")


def test_pairs_and_images_of_another_dtype_are_others():
    collect = [composed("collect", *SDXL, "metric=pickscore", f"device={device}") for device in ("cpu", "cuda")]
    assert differences(*map(provenance, collect)) == [("model.dtype", "float32", "float16")]
    evaluate = [composed("evaluate", *SDXL, f"device={device}") for device in ("cpu", "cuda")]
    one, two = (drawing_settings(config, ["standard"], {})["standard"] for config in evaluate)
    with pytest.raises(UserError, match=r"^x was made with pipeline\.dtype=float32, now pipeline\.dtype=float16: do"):
        check("x", one, two, "do something")


@pytest.mark.parametrize(("options", "counts"), [({}, False), ({"signs": "raw"}, True), ({"svd": False}, False)])
def test_the_device_counts_where_it_decides_the_signs(options, counts):
    npnet = NPNet((4, 8, 8), (16, 128), backbone="conv", backbone_args={"width": 8}, **options)
    found = [
        drawing_settings(composed("evaluate", f"device={device}"), ["npnet", "standard"], {"npnet": npnet})
        for device in ("cpu", "cuda")
    ]
    assert bool(changes(found[0]["npnet"], found[1]["npnet"])) == counts
    assert found[0]["standard"] == found[1]["standard"]  # the miniature runs in float32 everywhere
    runs = [
        run_identity(
            composed("train", "model=svd_unet+unet", *(f"model.npnet.{k}={v}" for k, v in options.items()), d), {}
        )
        for d in ("device=cpu", "device=cuda")
    ]
    assert bool(changes(*runs)) == counts


def test_a_hub_source_counts_with_its_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    hub.hub_commit.cache_clear()
    references = tmp_path / "models--ORG--NAME/refs"
    references.mkdir(parents=True)
    (references / "main").write_text(COMMIT)
    (references / "v1").write_text(COMMIT[::-1])
    assert hub.hub_commit("ORG/NAME", None) == hub.hub_commit("ORG/NAME", "main") == COMMIT
    assert hub.hub_commit("ORG/NAME", "v1") == COMMIT[::-1]
    assert hub.hub_commit("ORG/NAME", COMMIT) == COMMIT
    for unknown in ("ORG/OTHER", "package:shapes/weights", "./ORG/NAME", str(tmp_path), "../x", "a b/c", "x"):
        assert hub.hub_commit(unknown, None) is None
    options = [*SDXL, "pipeline.model.source=ORG/NAME", "metric=pickscore", "metric.pickscore.model=ORG/NAME"]
    config = composed("collect", *options, "metric.pickscore.revision=v1", "collection.select_by=pickscore")
    assert provenance(config)["commits"] == {"ORG/NAME@main": COMMIT, "ORG/NAME@v1": COMMIT[::-1]}
    scores = identity.scores(OmegaConf.to_container(config.metric.pickscore, resolve=True), "1")
    assert scores["commits"] == {"ORG/NAME@v1": COMMIT[::-1]}
    hub.hub_commit.cache_clear()


def test_commits_that_one_side_does_not_know_do_not_count():
    one, two = ({"algorithm": 1, "commits": {"a/b": commit}} for commit in "xy")
    assert changes(one, two) == [("commits.a/b", "x", "y")]
    assert changes(one, {"algorithm": 1}) == changes({"algorithm": 1}, two) == []


def test_another_algorithm_is_another_result(monkeypatch):
    config = composed("collect")
    before = provenance(config)
    monkeypatch.setitem(identity.ALGORITHM, "pairs", 2)
    assert changes(before, provenance(config)) == [("algorithm", 1, 2)]


def test_what_earlier_versions_did_not_record_is_not_compared():
    new = provenance(composed("collect", *SDXL, "metric=pickscore", "device=cuda"))
    old = {name: part for name, part in new.items() if name not in ("algorithm", "files", "commits")}
    old["model"] = old["model"] | {"dtype": "auto"}
    assert changes(old, new) == []
    assert changes(old | {"store_embeds": False}, new) == [("store_embeds", False, True)]


def test_a_setting_that_the_miniature_did_not_have_does_not_change_its_records():
    """`config` came later; only another value than null counts."""
    config, npnet = composed("train"), NPNet((4, 8, 8), (16, 128), backbone=None)
    options = "pipeline=shapes_turbo", "metric=pickscore"
    made = [(composed("collect", *options), provenance), (config, trained)]
    made.append((composed("evaluate", *options), lambda each: drawn(each, npnet)))
    for settings, identify in made:
        assert settings.pipeline.model.config is None
        earlier = settings.copy()
        OmegaConf.set_struct(earlier, False)
        del earlier.pipeline.model.config
        assert identify(earlier) == identify(settings)


# Refusals ----------------------------------------------------------------------------------------------------


def test_a_refusal_is_one_line_that_names_the_first_settings():
    old = {"a": {"b": 1, "c": None}, "d": True, "e": [1, 2], "f": "x" * 1000}
    new = {"a": {"b": 2}, "d": False, "e": [1, 3], "f": "y"}
    with pytest.raises(UserError) as error:
        check("runs/x", old, new, "give another name=NAME")
    assert str(error.value) == (
        "runs/x was made with a.b=1, a.c=null, d=true, now a.b=2, a.c=(absent), d=false and 2 more: "
        "give another name=NAME"
    )
    with pytest.raises(UserError, match=f"made with f={'x' * 100}\\.\\.\\., now f=y: do"):
        check("x", {"f": old["f"]}, {"f": "y"}, "do")
    with pytest.raises(UserError, match=r"^x was made with other weights of npnet and other files in a/b: do$"):
        check("x", {"npnet": "1", "files": {"a/b": "1"}}, {"npnet": "2", "files": {"a/b": "2"}}, "do")
    check("x", {"a": (1, 2), "b": 2}, {"a": [1, 2], "b": 2.0}, "do")


def test_differences_finds_changed_added_and_removed_keys():
    old, new = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 4}, "e": {"f": 5}}
    assert differences(old, new) == [("a.c", 2, 4), ("d", 3, "(absent)"), ("e", "(absent)", {"f": 5})]
    assert differences(old, old) == []


# Files


def test_keys_depend_on_every_part_and_not_on_the_order_of_settings():
    assert digest("score", {"a": 1, "b": 2}) == digest("score", {"b": 2, "a": 1})
    assert len({digest("score", "x"), digest("score", "y"), digest("x", "score"), digest("score", ["x"])}) == 4


def test_a_changed_file_has_another_digest(tmp_path):
    (tmp_path / "a").write_bytes(b"one")
    before = file_digest(tmp_path / "a")
    (tmp_path / "a").write_bytes(b"two")
    assert file_digest(tmp_path / "a") != before


def test_other_files_in_the_same_place_are_other_settings(tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/a.bin").write_bytes(b"one")
    settings = {"model": str(tmp_path / "weights"), "head": {"file": str(tmp_path / "weights/a.bin")}, "scale": 2}
    before = local_files(settings)
    assert len(before) == 2 and local_files(settings) == before
    (tmp_path / "weights/a.bin").write_bytes(b"two")
    assert local_files(settings).keys() == before.keys()
    assert not set(local_files(settings).items()) & set(before.items())


def test_settings_that_name_no_files():
    assert local_files({"model": "ORG/NAME", "prefix": "", "words": "w" * 5000, "null": "a\0b", "size": None}) == {}
    assert list(local_files({"model": "package:shapes/weights/reward"})) == ["package:shapes/weights/reward"]


def test_of_a_large_file_its_size_and_samples_count(tmp_path):
    path, size = tmp_path / "weights", SAMPLES * BLOCK + 3_000_001
    with path.open("wb") as file:
        file.truncate(size)  # takes no space
    digests = {sampled_digest(path)}
    for place in (0, size // 2 // BLOCK * BLOCK, size - 1):
        with path.open("r+b") as file:
            file.seek(place)
            file.write(b"x")
        digests.add(sampled_digest(path))
    with path.open("ab") as file:
        file.write(b"x")
    assert len(digests | {sampled_digest(path)}) == 5


def test_a_file_that_was_only_touched_is_the_same(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"weights")
    before = local_files({"model": str(tmp_path)})
    os.utime(tmp_path / "a.bin", (0, 0))
    assert local_files({"model": str(tmp_path)}) == before


def test_adapters_are_told_apart_by_file_and_strength_and_one_is_recorded_as_ever(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"a")
    file = {"source": str(tmp_path / "a.safetensors")}

    def of(loras):
        return identity.images(identity.model({"source": "ORG/NAME", "loras": loras}, "float32"))

    assert of({})["pipeline"]["lora"] is None and of({"x": file})["pipeline"]["lora"] == file
    assert of({"x": file | {"strength": 1.0}}) == of({"y": file})
    weaker = of({"x": file | {"strength": 0.8}})
    assert weaker["pipeline"]["loras"] == {"x": file | {"strength": 0.8}}
    assert of({"x": file | {"strength": 0.8}, "y": file}) != weaker != of({"x": file})
    (tmp_path / "a.safetensors").write_bytes(b"b")
    assert of({"x": file | {"strength": 0.8}})["files"] != weaker["files"]
