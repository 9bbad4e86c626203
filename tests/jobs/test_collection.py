"""The collect job: repeatable, restartable at any moment, and particular about its folder."""

import hashlib
import json
import multiprocessing
import random
import tarfile
import time

import pytest
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from golden_noise.collection import collect
from golden_noise.config import check
from golden_noise.errors import UserError
from golden_noise.pairs import NoisePair, ShardIndex, read_shard

SMALL = ["prompts.count=12", "collection.shard_size=4", "collection.batch_size=4", "pipeline.steps=3"]


def contents(folder):
    """Checksum of every file that counts."""
    names = [*folder.glob("pairs-*.tar"), folder / "index.json"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in names}


def test_collecting_twice_gives_identical_bytes(compose_job, tmp_path):
    for name in ("one", "two"):
        collect(compose_job("collect", *SMALL, f"data_dir={tmp_path}/{name}"))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    index = ShardIndex.load(tmp_path / "one")
    assert [shard.samples for shard in index.shards] == [4, 4, 4]
    pairs = [NoisePair.from_sample(s) for shard in index.shards for s in read_shard(tmp_path / "one", shard)]
    assert [pair.prompt.index for pair in pairs] == list(range(12))
    assert all((pair.noise - pair.golden).abs().max() > 1e-3 for pair in pairs)


def test_selection_keeps_only_improvements_and_records_all_scores(compose_job, tmp_path):
    options = ["collection.select_by=soft", "~metric.reward"]
    collect(compose_job("collect", *SMALL, *options))
    index = ShardIndex.load(tmp_path / "pairs")
    assert sum(shard.samples + shard.rejected for shard in index.shards) == 12
    kept = [NoisePair.from_sample(s) for shard in index.shards for s in read_shard(tmp_path / "pairs", shard)]
    assert all(pair.scores["soft"][1] > pair.scores["soft"][0] for pair in kept)
    assert sum(shard.rejected for shard in index.shards) > 0


def test_embeddings_can_be_left_out(compose_job, tmp_path):
    for name, option in (("with", "true"), ("without", "false")):
        collect(compose_job("collect", *SMALL, f"data_dir={tmp_path}/{name}", f"collection.store_embeds={option}"))
    sets = [tmp_path / name for name in ("with", "without")]
    kept, left_out = ([p for e in ShardIndex.load(s).shards for p in read_shard(s, e)] for s in sets)
    for full, bare in zip(kept, left_out, strict=True):
        assert full.keys() - bare.keys() == {"embeds.npy", "pooled.npy"}
        assert all(bare[name] == full[name] for name in ("json", "noise.npy", "golden.npy"))


@pytest.mark.parametrize(
    ("select_by", "kept"),
    [
        ("{soft: 1, strict: 2}", lambda gain: gain["soft"] + 2 * gain["strict"] > 0),
        ("[soft, reward]", lambda gain: gain["soft"] > 0 and gain["reward"] > 0),
    ],
)
def test_selection_by_several_metrics(compose_job, tmp_path, select_by, kept):
    config = compose_job("collect", *SMALL, f"collection.select_by={select_by}")
    check(config)
    collect(config)
    lines = []
    for tar in sorted((tmp_path / "pairs").glob("pairs-*.tar")):
        with tarfile.open(tar) as shard:
            lines += [json.load(shard.extractfile(each)) for each in shard if each.name.endswith(".json")]
    assert len(lines) == 12
    for line in lines:
        assert line["scores"].keys() == {"strict", "soft", "reward"}  # of kept and of rejected pairs
        gain = {name: golden - standard for name, (standard, golden) in line["scores"].items()}
        assert line["accepted"] is kept(gain)
    collect(config)  # the record of the selection is read back as it was written


def test_a_metrics_missing_file_is_noticed_first(compose_job):
    with pytest.raises(UserError, match=r"metric.reward.model=/no/such/folder"):
        check(compose_job("collect", "metric.reward.model=/no/such/folder"))


def test_other_settings_are_refused(compose_job):
    collect(compose_job("collect", *SMALL))
    with pytest.raises(UserError, match=r"search.rounds=1.*search.rounds=2"):
        collect(compose_job("collect", *SMALL, "search.rounds=2"))


def test_a_mistake_before_the_first_pair_does_not_bind_the_folder(compose_job):
    with pytest.raises(InstantiationException, match=r"search\.rounds=0"):
        collect(compose_job("collect", *SMALL, "search.rounds=0"))
    collect(compose_job("collect", *SMALL))


def test_a_finished_set_is_left_alone(compose_job, tmp_path):
    config = compose_job("collect", *SMALL)
    collect(config)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "pairs").glob("[!.]*")}
    collect(config)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "pairs").glob("[!.]*")}


def _collect(plain):
    import torch

    torch.set_num_threads(1)
    collect(OmegaConf.create(plain))


def test_killed_at_random_moments_the_set_comes_out_the_same(compose_job, tmp_path):
    def plain(folder):
        options = [
            "prompts.count=24",
            "collection.shard_size=1",
            "collection.batch_size=1",
            "pipeline.steps=3",
        ]
        return OmegaConf.to_container(compose_job("collect", *options, f"data_dir={folder}"), resolve=True)

    # The fork server imports the heavy libraries once; every collector is then a fresh process of its own.
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["golden_noise.collection", "golden_noise.shapes.models"])
    first = processes.Process(target=int)  # waits for the libraries, which are no part of the duration
    first.start()
    first.join()
    start = time.perf_counter()
    whole = processes.Process(target=_collect, args=(plain(tmp_path / "whole"),))
    whole.start()
    whole.join()
    assert whole.exitcode == 0
    duration = time.perf_counter() - start

    rng, kills = random.Random(0), 0
    while kills < 20:
        victim = processes.Process(target=_collect, args=(plain(tmp_path / "killed"),))
        victim.start()
        victim.join(rng.uniform(0.05, 0.4) * duration)
        victim.kill()
        victim.join()
        kills += 1
    last = processes.Process(target=_collect, args=(plain(tmp_path / "killed"),))
    last.start()
    last.join()
    assert last.exitcode == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
