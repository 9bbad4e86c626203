import contextlib
import hashlib
import multiprocessing
import os
import pickle
import subprocess
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from golden_noise.errors import UserError
from golden_noise.pairs import ShardIndex, read_shard
from golden_noise.pairs.dataset import NoisePairDataset
from golden_noise.pairs.loader import NoisePairLoader
from golden_noise.pairs.order import split_of
from golden_noise.pairs.source import ShardSource

from .factory import EMBEDS_SHAPE, LATENT_SHAPE, POOLED_SHAPE, collect, make_pair, overwrite_shard

VAL_FRACTION = 0.3
SHAPES = {"noise": LATENT_SHAPE, "golden": LATENT_SHAPE, "embeds": EMBEDS_SHAPE}


def loader(folder: Path, split="train", batch_size=2, shapes=SHAPES, shuffle_shards=0, **kwargs) -> NoisePairLoader:
    shards = ShardIndex.load(folder).shards
    dataset = NoisePairDataset(ShardSource(folder), shards, shapes, max_open=max(1, shuffle_shards))
    return NoisePairLoader(dataset, split, VAL_FRACTION, batch_size, shuffle_shards, **kwargs)


def batch_keys(batches) -> list[list[str]]:
    return [batch["key"] for batch in batches]


def split_keys(folder: Path, split: str) -> list[str]:
    samples = [sample for shard in ShardIndex.load(folder).shards for sample in read_shard(folder, shard)]
    return [sample["__key__"] for sample in samples if split_of(sample["__prompt__"], VAL_FRACTION) == split]


@pytest.mark.parametrize("shapes", [SHAPES, SHAPES | {"pooled": POOLED_SHAPE}])
def test_a_batch_holds_what_was_collected(tmp_path, shapes):
    collect(tmp_path, [8])
    batch = next(iter(loader(tmp_path, batch_size=3, shapes=shapes)))
    pairs = [make_pair(int(key)) for key in batch["key"]]
    assert batch.keys() == {"key", "prompt", *shapes}
    assert batch["prompt"] == [pair.prompt.text for pair in pairs]
    for name, shape in shapes.items():
        assert batch[name].shape == (3, *shape) and batch[name].dtype == torch.float16
        assert torch.equal(batch[name].float(), torch.stack([getattr(pair, name) for pair in pairs]))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(0, 7), min_size=1, max_size=4),
    batch_size=st.integers(1, 4),
    world_size=st.integers(1, 3),
    num_workers=st.integers(0, 2),
)
def test_ranks_share_an_epoch_exactly(tmp_path_factory, sizes, batch_size, world_size, num_workers):
    folder = tmp_path_factory.mktemp("pairs")
    collect(folder, sizes)
    options = {"shuffle_shards": 2, "num_workers": num_workers, "world_size": world_size}
    for split in ("train", "val"):
        ranks = [loader(folder, split, batch_size, rank=rank, **options) for rank in range(world_size)]
        seen = [batch_keys(rank) for rank in ranks]
        expected = split_keys(folder, split)
        assert {len(batches) for batches in seen} == {len(rank) for rank in ranks}
        flat = [key for batches in seen for batch in batches for key in batch]
        assert len(flat) == len(set(flat)) and set(flat) <= set(expected)
        if split == "train":
            assert len(expected) - len(flat) < batch_size * world_size
        elif len(expected) >= world_size:
            assert set(flat) == set(expected)


@pytest.mark.parametrize("world_size", [1, 2])
def test_the_number_of_workers_does_not_change_the_batches(tmp_path, world_size):
    collect(tmp_path, [9, 4, 12, 6])
    options = {"batch_size": 1, "shuffle_shards": 3, "rank": world_size - 1, "world_size": world_size}
    for split in ("train", "val"):
        runs = [batch_keys(loader(tmp_path, split, num_workers=workers, **options)) for workers in (0, 1, 2, 7)]
        assert all(run == runs[0] for run in runs) and len(runs[0]) > 2


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_can_begin_in_the_middle(tmp_path, workers):
    collect(tmp_path, [9, 4, 12, 6])
    options = {"shuffle_shards": 2, "rank": 1, "world_size": 2, "num_workers": workers}
    whole = batch_keys(loader(tmp_path, **options))
    resumed = loader(tmp_path, **options)
    resumed.load_state_dict({"epoch": 0, "pairs": 2 * 2 * 2})  # of two ranks
    assert batch_keys(resumed) == whole[2:] != []
    assert batch_keys(resumed) == batch_keys(loader(tmp_path, epoch=1, **options)) != whole


def test_a_rank_reads_no_pair_of_another(tmp_path, monkeypatch):
    collect(tmp_path, [20, 20])
    read, pread = [], os.pread
    monkeypatch.setattr(os, "pread", lambda *arguments: read.append(arguments) or pread(*arguments))
    batches = list(loader(tmp_path, batch_size=2, world_size=2))
    assert len(read) == sum(len(batch["key"]) for batch in batches)  # one JSON each; arrays are read in place
    assert len(read) <= len(split_keys(tmp_path, "train")) / 2


@pytest.mark.parametrize("workers", [0, 3])
def test_a_process_hashes_every_shard_once_and_closes_it(tmp_path, monkeypatch, workers):
    """Hashes and open files are noted in files: workers are processes."""
    collect(tmp_path / "pairs", [4, 3, 5, 6])
    digest, read = hashlib.file_digest, NoisePairDataset.read

    def noting_digest(file, name):
        with (tmp_path / f"hashed-{os.getpid()}").open("a") as log:
            print(Path(file.name).name, file=log)
        return digest(file, name)

    def noting_read(self, *item):
        batch = read(self, *item)
        opened = []
        for link in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # another thread closed it meanwhile
                opened.append(os.readlink(link))
        assert sum(name.startswith(str(tmp_path)) and name.endswith(".tar") for name in opened) <= 2
        return batch

    monkeypatch.setattr(hashlib, "file_digest", noting_digest)
    monkeypatch.setattr(NoisePairDataset, "read", noting_read)
    options = {"num_workers": workers, "persistent_workers": workers > 0}
    stream = loader(tmp_path / "pairs", batch_size=1, shuffle_shards=2, **options)
    for _ in range(3):
        assert batch_keys(stream)
    next(iter(stream))  # left in the middle
    assert batch_keys(stream)
    stream.close()
    logs = [log.read_text().split() for log in tmp_path.glob("hashed-*")]
    assert len(logs) == max(1, workers)
    assert all(len(names) == len(set(names)) for names in logs)
    assert set().union(*logs) == {f"pairs-00000{unit}.tar" for unit in range(4)}


def test_the_dataset_can_be_sent_to_a_worker_that_is_not_forked(tmp_path):
    collect(tmp_path, [8])
    stream = loader(tmp_path)
    sent = pickle.loads(pickle.dumps(stream.dataset))
    order = stream.plan(0)[0]
    assert sent.read(0, order)["key"] == stream.dataset.read(0, order)["key"]


def test_a_worker_takes_nothing_from_the_global_random_numbers(tmp_path):
    collect(tmp_path, [8])
    before = torch.get_rng_state()
    for workers in (0, 1):
        assert batch_keys(loader(tmp_path, num_workers=workers))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("fault", ["truncated", "deleted", "flipped", "swapped"])
def test_a_shard_that_is_damaged_between_epochs_is_refused(tmp_path, workers, fault):
    collect(tmp_path, [8, 8])
    stream = loader(tmp_path, num_workers=workers, shuffle_shards=2, persistent_workers=workers > 0)
    list(stream)  # found good once
    path = tmp_path / "pairs-000000.tar"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if fault == "truncated":
        os.truncate(path, 5000)
    elif fault == "deleted":
        path.unlink()
    else:
        overwrite_shard(tmp_path, content if fault == "flipped" else (tmp_path / "pairs-000001.tar").read_bytes())
    with pytest.raises(UserError, match=r"^shard .*pairs-000000\.tar (is damaged|cannot be read) \(.*\).*\Z"):
        list(stream)
    stream.close()


def test_a_pair_of_another_shape_is_refused(tmp_path):
    collect(tmp_path, [8])
    with pytest.raises(UserError, match="noise is 4x2x2, not 4x8x8"):
        list(loader(tmp_path, shapes={"noise": (4, 8, 8)}))
    with pytest.raises(UserError, match="pooled is 6, not 7"):
        list(loader(tmp_path, shapes={"pooled": (7,)}))


def test_a_shard_is_opened_once_an_epoch(tmp_path, monkeypatch):
    collect(tmp_path, [8, 8])
    stream, opened, open_shard = loader(tmp_path, shuffle_shards=1), [], ShardSource.open
    monkeypatch.setattr(ShardSource, "open", lambda self, entry: opened.append(entry.name) or open_shard(self, entry))
    for _ in range(3):
        opened.clear()
        list(stream)
        assert sorted(opened) == ["pairs-000000.tar", "pairs-000001.tar"]


def test_workers_end_with_the_training_not_with_what_signals_them(tmp_path):
    """SLURM sends SIGTERM to every process of a job."""
    collect(tmp_path, [9, 4, 12, 6])
    whole = batch_keys(loader(tmp_path))
    others = {*multiprocessing.active_children()}  # of the tests
    batches = iter(loader(tmp_path, num_workers=2))
    seen = [next(batches)["key"], next(batches)["key"]]  # of both workers, which have started
    workers = {*multiprocessing.active_children()} - others
    for worker in workers:  # not from this process, which may end them
        subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)
    assert [*seen, *batch_keys(batches)] == whole and len(whole) > 5
    assert len(workers) == 2 and all(worker.exitcode in (None, 0) for worker in workers)


def test_a_training_ends_its_workers(tmp_path):
    collect(tmp_path, [9, 4, 12, 6])
    others = {*multiprocessing.active_children()}  # of the tests
    batches = iter(loader(tmp_path, num_workers=1))
    next(batches)
    (worker,) = {*multiprocessing.active_children()} - others
    worker.terminate()
    worker.join(20)
    assert worker.exitcode == 0
    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        list(batches)
