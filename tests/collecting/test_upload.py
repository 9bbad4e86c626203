"""Collecting with `upload=`: by several processes, killed, resumed, extended and overwritten; training from there."""

import os
import signal
import time
from urllib.parse import quote

import pytest
from omegaconf import OmegaConf
from safetensors.torch import load_file

from golden_noise import identity
from golden_noise.cli.validation import check
from golden_noise.collecting.job import collect, collect_job, provenance
from golden_noise.errors import UserError
from golden_noise.pairs import ShardIndex
from golden_noise.pairs.source import ShardSource
from tests.collecting.test_job import SMALL, contents
from tests.forked import run_script, start_script
from tests.object_storage import Fault

URL = "s3://pairs/set"
UPLOAD = [*SMALL, f"upload={URL}"]


def uploaded():
    """The names and checksums in the remote index, whose shards are read to their end."""
    source = ShardSource(URL)
    index = source.load_index()
    for shard in index.shards:
        source.open(shard).close()
    return {shard.name: shard.sha256 for shard in index.shards}


def test_it_uploads_while_it_collects_and_changes_no_pair(compose_job, s3, tmp_path, capsys):
    config = compose_job("collect", *UPLOAD)
    check(config)
    collect_job(config)
    assert capsys.readouterr().out.rstrip().endswith(f"in 3 shards: {tmp_path}/pairs, uploaded to {URL}")
    puts = [request for request in s3.requests if request.startswith("PUT /pairs/set/pairs-") or "PUT" in request]
    assert puts[1:4] == [
        "PUT /pairs/set/collection.txt",
        "PUT /pairs/set/pairs-000000.tar",
        "PUT /pairs/set/index.json",
    ]
    assert uploaded().keys() == {f"pairs-00000{n}.tar" for n in range(3)}
    without = compose_job("collect", *SMALL, f"data_dir={tmp_path}/without")
    collect(without)
    assert contents(tmp_path / "pairs") == contents(tmp_path / "without")
    assert provenance(config) == provenance(without)


def test_a_longer_list_is_uploaded_too(compose_job, s3, tmp_path):
    """Of 10 prompts the last shard has 2, of 15 it has 4: that one is replaced."""
    collect_job(compose_job("collect", *UPLOAD, "prompts.count=10"))
    first = uploaded()
    collect_job(compose_job("collect", *UPLOAD, "prompts.count=15", "mode=extend"))
    second = uploaded()
    assert second.keys() - first.keys() == {"pairs-000003.tar"}
    assert [name for name in first if first[name] != second[name]] == ["pairs-000002.tar"]
    collect_job(compose_job("collect", *UPLOAD, "search.rounds=2", "mode=overwrite"))
    assert uploaded().keys() == {f"pairs-00000{n}.tar" for n in range(3)}
    assert s3.ask("HEAD", quote("/pairs/set/pairs-000003.tar"))[0] == 404


def test_a_wrong_place_is_refused_before_models_are_loaded(compose_job, s3, tmp_path):
    options = [*SMALL, "pipeline.model.source=/nowhere"]
    with pytest.raises(UserError, match=r"upload=outputs/pairs is not a URL of object storage: write it like s3://"):
        collect_job(compose_job("collect", *options, "upload=outputs/pairs"))
    with pytest.raises(UserError, match=r"^s3://nobucket/collection\.txt cannot be written .*: check the address"):
        collect_job(compose_job("collect", *SMALL, "upload=s3://nobucket"))
    with pytest.raises(UserError, match="upload"):
        check(compose_job("collect", "upload=3"))


@pytest.mark.slow
def test_two_processes_killed_at_random_moments(tiny_sdxl, s3, tmp_path):
    few = ["prompts.count=8", "collection.shard_size=1", "collection.batch_size=1", "pipeline.steps=3"]
    options = [*few, f"pipeline.model.source={tiny_sdxl}", "device=cpu", "collection.select_by=null"]
    places = [f"data_dir={tmp_path}/pairs", f"paths.outputs={tmp_path}/outputs"]
    command = ["collect.py", *options, *places, f"upload={URL}", "fabric.devices=2"]
    for kill in range(6):
        process = start_script(tmp_path, *command)
        before = s3.count(r"^PUT .*pairs-")
        while process.is_alive() and s3.count(r"^PUT .*pairs-") < before + 1 + kill % 2:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
        if s3.ask("HEAD", "/pairs/set/index.json")[0] == 200:
            uploaded()  # all of it is there, and whole
    done = run_script(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    index = ShardIndex.load(tmp_path / "pairs")
    assert uploaded() == {shard.name: shard.sha256 for shard in index.shards} and len(index.shards) == 8


@pytest.mark.parametrize(
    "compared", [pytest.param(False, marks=pytest.mark.long), pytest.param(True, marks=pytest.mark.slow)]
)
def test_two_ranks_train_from_storage_that_fails(compose_job, tiny_sdxl, s3, tmp_path, compared):
    """Both ranks and their workers share the cache; connections break, and the weights are those from a folder."""
    few = ["prompts.count=40", "collection.shard_size=10", "collection.batch_size=10", "pipeline.steps=3"]
    collect_job(compose_job("collect", *few, f"upload={URL}"))
    tiny = ["recipe=shapes", "recipe.batch_size=4", "recipe.epochs=1", "recipe.backbone_args.embed_dim=16"]
    tiny += ["recipe.backbone_args.depth=1", "data.val_fraction=0.3", "evaluate=false", "sample_every_n_epochs=0"]
    tiny += [f"pipeline.model.source={tiny_sdxl}", "device=cpu", "logger=null", f"paths.outputs={tmp_path}/outputs"]
    faults = (("cut", "index", 6), ("refuse", "000001", 6), ("cut", "tar", 2))
    s3.faults = [Fault(kind, f"GET .*{name}", times) for kind, name, times in faults]
    s3.requests.clear()
    options = ["train.py", *tiny, "trainer=ddp_cpu", f"data.cache={tmp_path}/cache"]
    done = run_script(tmp_path, *options, "name=remote", f"data_dir={URL}")
    assert done.returncode == 0, done.stderr
    assert [fault.times for fault in s3.faults] == [0, 0, 0]
    log = (tmp_path / "outputs/train/remote/log.txt").read_text()
    assert f"{URL}/index.json was not fetched (" in log and "): next try in " in log
    assert len(list((tmp_path / "cache").glob("*.tar"))) == 4
    if compared:
        shards = f'data_dir="{tmp_path}/pairs/pairs-{{000000..000003}}.tar"'  # by name: nothing is to be collected
        done = run_script(tmp_path, *options, "name=folder", shards)
        assert done.returncode == 0, done.stderr
        runs = [tmp_path / f"outputs/train/{name}/npnet/last" for name in ("remote", "folder")]
        remote, folder = (load_file(next(run.glob("*.safetensors"))) for run in runs)
        assert all((remote[name] - folder[name]).abs().max() < 1e-4 for name in folder)


def test_where_pairs_are_uploaded_is_no_part_of_a_training(compose_job):
    config = OmegaConf.to_container(compose_job("train", "collection.select_by=null"), resolve=True)
    assert "upload" not in config
    assert "upload" not in identity.run(config, "float32", "cpu", {})
